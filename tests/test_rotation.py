"""A rotation of secrets is for the whole environment: a part of it is refused before the vault or a host changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret

from tools.console import ROOT

HOSTS = "all: {vars: {ansible_connection: local}, hosts: {one: {}, two: {}}, children: {web: {hosts: {one: {}}}, app: {hosts: {one: {}, two: {}}}}}"


@pytest.mark.parametrize("option", ["--limit=two", "--tags=app", "--skip-tags=redis", "--skip-tags=always", "--forks=2"])
def test_a_part_of_the_environment_is_refused(tmp_path: Path, option: str) -> None:
    """The last option leaves nothing out, and what stops that run is that the environment lacks its other variables."""
    vault = tmp_path / "group_vars/all/vault.yml"
    vault.parent.mkdir(parents=True)
    vault.write_bytes(VaultLib().encrypt("vault_app_secret_key: W4vGq8sZ0pLr2xNd\n", VaultSecret(b"password")))
    before = vault.read_bytes()
    (tmp_path / "hosts.yml").write_text(HOSTS)
    (tmp_path / "password").write_text("password\n")
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i",
            str(tmp_path / "hosts.yml"),
            option,
            "playbooks/rotate_secrets.yml",
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_VAULT_PASSWORD_FILE": str(tmp_path / "password")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    part = option != "--forks=2"
    assert ("run this without --limit, --tags and" in " ".join(done.stdout.split())) == part, done.stdout[-3000:] + done.stderr[-2000:]
    assert ("TASK [Gathering Facts]" not in done.stdout) == part
    assert vault.read_bytes() == before
