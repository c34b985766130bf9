"""What auditors' tools find."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tools import audit
from tools.console import ROOT, say

SITE = "www.test.example"
# WARN is no severity: testssl.sh could not ask. On a busy machine its own openssl is too late for these.
UNASKED = {"sessionresumption_ticket", "sessionresumption_ID"}


def test_testssl_gives_the_best_grade(server: Any, scans: dict[str, audit.Program]) -> None:
    """Catches any finding above LOW, and a grade below A+: a cipher, a vulnerability, a header, a certificate that clients of the CA refuse."""
    found = audit.testssl_found(scans[server.address])
    bad = {name: said for name, said in found.items() if said[0] not in {"OK", "INFO", "LOW"}}
    say(json.dumps({"grade": found["overall_grade"][1], "findings": len(found), "above LOW": bad}))
    assert found["overall_grade"][1] == "A+"
    assert [name for name, (severity, _) in bad.items() if not (severity == "WARN" and name in UNASKED)] == [], bad
    # It has asked all that the grade stands for
    for name in (
        "heartbleed",
        "CCS",
        "ROBOT",
        "secure_client_renego",
        "POODLE_SSL",
        "SWEET32",
        "DROWN",
        "LOGJAM",
        "BEAST",
        "LUCKY13",
        "RC4",
    ):
        assert name in found


def test_sslyze_agrees_with_mozilla(server: Any, ca: Path, tmp_path: Path) -> None:
    """Catches a configuration that is not Mozilla's intermediate profile."""
    program = ROOT / ".venv-audit/bin/sslyze"
    if not program.exists():
        pytest.fail("make audit-toolchain brings sslyze")
    where = ["--sni", SITE, "--certinfo_ca_file", str(ca), f"{server.address}:443"]
    command = [str(program), "--mozilla_config=intermediate", "--json_out", str(tmp_path / "found.json"), *where]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "OK - Compliant" in done.stdout
    (found,) = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["server_scan_results"]
    assert found["scan_status"] == "COMPLETED"
    (deployment,) = found["scan_result"]["certificate_info"]["result"]["certificate_deployments"]
    paths = deployment["path_validation_results"]
    assert [path["was_validation_successful"] for path in paths if path["trust_store"]["name"].startswith("Supplied")] == [True]
