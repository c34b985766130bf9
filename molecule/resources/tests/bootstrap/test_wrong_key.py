"""What playbooks/bootstrap.yml promises where something is wrong: a mistake leaves the door open, and the next run mends it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# One that has only root, and one that has only an image's user: each run is on all hosts
testinfra_hosts = ["ansible://root13", "ansible://user12"]
PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
BOOTSTRAP = "playbooks/bootstrap.yml"
Attempt = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def fresh(inside: Callable[[str], str]) -> None:
    """The host as it was before: its administrators gone, and its first door open."""
    inside(
        "rm -rf /etc/groundcrew-ssh /etc/ssh/sshd_config.d/00-groundcrew.conf /etc/sudoers.d/95-groundcrew-administrators; "
        "for user in anna bert; do userdel --force --remove $user 2>/dev/null || true; done; "
        "systemctl reset-failed ssh; systemctl restart ssh"
    )


def bootstrap(*options: str) -> Any:
    """The playbook on all hosts: one of them fresh, three managed."""
    command = [str(Path(sys.executable).with_name("ansible-playbook")), f"--inventory={os.environ['MOLECULE_INVENTORY_FILE']}"]
    return subprocess.run([*command, *options, BOOTSTRAP], cwd=PROJECT, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.usefixtures("fresh")
def test_a_wrong_key_never_closes_the_door(name: str, attempt: Attempt, secret: Callable[[str], str], tmp_path: Path) -> None:
    """Catches SSH closed to root before anybody has seen that an administrator gets in; and a second run that does not mend it, or that
    changes the hosts which were managed."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    other = (tmp_path / "other.pub").read_text().strip()
    people = f'{{"administrators_people": [{{"name": "anna", "keys": ["{other}"]}}]}}'
    user = "root" if name == "root13" else "debian"

    wrong = bootstrap(f"--limit={name}", f"--extra-vars={people}")
    assert wrong.returncode != 0
    said = " ".join(wrong.stdout.split())
    assert f"anna cannot log in to {name} from here and become root" in said
    assert f"SSH was left as it was, so {user} still gets in" in said
    assert attempt(user, password=secret(user)).stdout.strip() == user

    right = bootstrap()
    assert right.returncode == 0, right.stdout[-3000:]
    changed = dict(re.findall(r"^(\w+) +: .*changed=(\d+)", right.stdout, re.MULTILINE))
    assert {one for one, count in changed.items() if count != "0"} == {name}
    assert attempt("anna", key="id_ed25519").stdout.strip() == "anna"
    assert attempt(user, password=secret(user)).returncode == 255
