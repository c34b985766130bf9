"""Ways in to the host under test: as root by no login, and by SSH as strangers come."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest

FOLDER = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", ""))
Attempt = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def name(host: Any) -> str:
    """The name of the host under test."""
    return str(host.ansible.get_variables()["inventory_hostname"])


@pytest.fixture
def inside(name: str) -> Callable[[str], str]:
    """Return a function that runs a command as root in the host, by no login at all."""

    def run(command: str) -> str:
        code, output = docker.from_env().containers.get(f"groundcrew-bootstrap-{name}").exec_run(["sh", "-ec", command])
        assert isinstance(output, bytes)
        assert code == 0, output
        return str(output, encoding="utf-8").strip()

    return run


@pytest.fixture
def attempt(address: str, tmp_path: Path) -> Attempt:
    """Return a function that logs in by one of the keys, or by a password alone."""

    def ssh(user: str, key: str = "", password: str = "") -> subprocess.CompletedProcess[str]:
        ask = tmp_path / "askpass"
        ask.write_text(f"#!/bin/sh\necho '{password}'\n")
        ask.chmod(0o700)
        way = ["-i", str(FOLDER / key), "-o", "BatchMode=yes"] if key else ["-o", "PubkeyAuthentication=no"]
        strict = [
            "-F",
            "none",
            "-o",
            f"UserKnownHostsFile={FOLDER}/known_hosts",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "IdentitiesOnly=yes",
        ]
        environment = {**os.environ, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
        command = ["ssh", *strict, *way, "-o", "ConnectTimeout=10", f"{user}@{address}", "id -un"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)

    return ssh


@pytest.fixture(scope="session")
def secret() -> Callable[[str], str]:
    """Return a function that tells the password with which a provider handed a user over."""
    return lambda user: (FOLDER / "secrets" / user).read_text().strip()
