"""The example inventories are complete, and nobody goes live with their published secrets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "base_accept_unsupported_release": True}


def preflight(environment: str, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run the preflight of an environment with this machine in the place of its hosts."""
    inventory = ROOT / "inventories" / environment
    return subprocess.run(
        [
            *(str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(inventory), "playbooks/preflight.yml"),
            *("--vault-password-file", str(inventory / "example-vault-password")),
            *("-e", json.dumps(LOCAL | variables)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_example_is_complete(environment: str) -> None:
    """Catches an example that lacks a variable, misspells one, or breaks a rule of a role."""
    done = preflight(environment, vault_is_example=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_example_secrets_are_refused() -> None:
    """Catches an environment that goes live with secrets that anyone can read in the repository."""
    done = preflight("staging")
    assert done.returncode != 0
    assert "make secrets ENV=staging" in done.stdout
