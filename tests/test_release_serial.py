"""How many hosts move at a time: what Ansible could not make batches of is refused before anything changes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLAYBOOK = str(Path(sys.executable).with_name("ansible-playbook"))


@pytest.mark.parametrize(("given", "taken"), [([1, "50%"], True), ("1,2", False), ([1, 0], False), ([], False)])
def test_batches_that_nobody_can_make_are_refused(tmp_path: Path, given: Any, taken: bool) -> None:
    """Catches a run that ends in its middle with an error of Ansible's own, and one whose batches are not what was meant."""
    (tmp_path / "hosts.yml").write_text("app: {hosts: {one: {ansible_connection: local}}}\n")
    command = [PLAYBOOK, f"--inventory={tmp_path}/hosts.yml", f"--extra-vars={json.dumps({'release_serial': given})}"]
    done = subprocess.run([*command, "playbooks/preflight_serial.yml"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode == 0) == taken, done.stdout + done.stderr
    assert ("say how many hosts move at a time" in done.stdout + done.stderr) != taken
