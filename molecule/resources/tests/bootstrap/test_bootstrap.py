"""What playbooks/bootstrap.yml promises: servers as providers hand them over end managed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", ""))
Attempt = Callable[..., "subprocess.CompletedProcess[str]"]


def test_only_administrators_log_in_and_only_by_key(attempt: Attempt, secret: Callable[[str], str]) -> None:
    """Catches a host whose first door, root or the image's user, is left open; strict host keys show that they were recorded."""
    for administrator in ("anna", "bert"):
        assert attempt(administrator, key="id_ed25519").stdout.strip() == administrator
    for refused in (
        attempt("root", password=secret("root")),
        attempt("debian", password=secret("debian")),
        attempt("debian", key="provider"),
        attempt("bert", password="planted-password"),
    ):
        assert refused.returncode == 255
        assert "Permission denied (publickey)." in refused.stderr


def test_sudo_is_as_the_data_says(host: Any) -> None:
    """Catches sudo without the password that was asked for, and a hash that did not arrive."""
    assert host.check_output("sudo -n id -un") == "root"
    ask = "sudo -u bert sh -c %s"
    assert "a password is required" in host.run(ask, "sudo -n true").stderr
    assert host.check_output(ask, "echo planted-password | sudo -S -p '' id -un") == "root"


def test_cloud_init_lets_no_administrator_do_more(host: Any) -> None:
    """Catches sudo without a password from the first boot, which outlives what the data says."""
    granted = str(host.run("sudo grep -hs NOPASSWD /etc/sudoers.d/90-cloud-init-users").stdout)
    assert "anna" not in granted


def test_no_password_or_hash_shows(host: Any, secret: Callable[[str], str]) -> None:
    """Catches a password in what Ansible prints, and a hash among the arguments that the journal keeps."""
    output = (FOLDER / "ansible.log").read_text()
    hashed = str(host.check_output("sudo getent shadow bert")).split(":")[1]
    assert hashed.startswith("$6$planted$")
    journal = host.check_output("sudo journalctl --no-pager")
    for planted in (secret("root"), secret("debian"), hashed, hashed.rpartition("$")[2]):
        assert planted not in output
        assert planted not in journal
