"""What role ssh promises: who may log in, by what, and that no configuration locks the controller out."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any, Protocol

import docker
import pytest

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
KEY = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", "")) / "id_ed25519"
PASSWORD = "planted-password"
CLIENT = ["ssh", "-F", "none", "-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "ConnectTimeout=5"]
DROP_IN = "/etc/ssh/sshd_config.d/00-groundcrew.conf"


class Login(Protocol):
    """Log in as a user, in a connection of its own; returns the client's end."""

    def __call__(self, user: str, *options: str, password: str = ...) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def login(address: str, tmp_path: Path) -> Login:
    """By the scenario's key, or by a password alone."""
    ask = tmp_path / "askpass"
    ask.write_text(f"#!/bin/sh\necho {PASSWORD}\n")
    ask.chmod(0o700)

    def attempt(user: str, *options: str, password: str = "") -> subprocess.CompletedProcess[str]:
        way = ["-o", "PubkeyAuthentication=no"] if password else ["-i", str(KEY), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]
        environment = {**os.environ, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
        command = [*CLIENT, *way, *options, f"{user}@{address}", "id -un"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL)

    return attempt


def container(host: Any) -> Any:
    name = host.ansible.get_variables()["inventory_hostname"]
    return docker.from_env().containers.get(f"groundcrew-ssh-{name}")


def status(host: Any) -> str:
    return str(host.check_output("sudo groundcrew-ssh status"))


def test_auditors_find_nothing(address: str) -> None:
    """Catches an algorithm, a host key or a banner that ssh-audit fails or warns about."""
    done = subprocess.run(
        [str(PROJECT / ".venv-audit/bin/ssh-audit"), "--no-colors", address], capture_output=True, text=True, timeout=120, check=False
    )
    assert "# key exchange algorithms" in done.stdout, done.stdout + done.stderr
    assert not re.findall(r".*\[(?:fail|warn)\].*", done.stdout)
    assert set(re.findall(r"^\(key\) (\S+)", done.stdout, re.MULTILINE)) == {"ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256"}
    assert done.returncode == 0


def test_only_members_log_in_and_only_by_key(login: Login) -> None:
    """Catches root, a password, and a user with a key who is in no allowed group; the image let all of them in."""
    assert login("admin").stdout.strip() == "admin"
    for refused in (login("root"), login("stranger"), login("stranger", password=PASSWORD), login("root", password=PASSWORD)):
        assert (refused.returncode, refused.stdout) == (255, "")
        assert "Permission denied (publickey)." in refused.stderr


@pytest.mark.parametrize("option", ["KexAlgorithms=curve25519-sha256", "MACs=hmac-sha2-256", "HostKeyAlgorithms=ecdsa-sha2-nistp256"])
def test_former_algorithms_are_refused(login: Login, option: str) -> None:
    """Catches an algorithm that is offered beside those of today."""
    # A cipher that brings its own integrity would leave the MAC aside
    assert "no matching" in login("admin", "-o", option, "-o", "Ciphers=aes256-ctr").stderr


def test_nothing_but_a_shell_is_offered(login: Login) -> None:
    """Catches a host that lets its users reach what is behind it."""
    done = login("admin", "-o", "ExitOnForwardFailure=yes", "-R", "127.0.0.1:18022:127.0.0.1:22")
    assert done.returncode != 0
    assert "forwarding failed" in done.stderr


def test_only_large_moduli_are_kept(host: Any) -> None:
    """Catches a key exchange by a group that is too small, where somebody asks for one."""
    sizes = {int(line.split()[4]) for line in host.check_output("cat /etc/groundcrew-ssh/moduli").splitlines() if line[:1] != "#"}
    assert sizes
    assert min(sizes) >= 3071


@pytest.mark.one_release
def test_a_run_by_root_or_password_is_refused(host: Any, converge: Any) -> None:
    """Catches a run that closes the door it came in by, and a message that does not tell the way."""
    before = host.file(DROP_IN).mtime
    result = converge(ansible_password=PASSWORD)
    assert result.returncode != 0
    assert "playbooks/bootstrap.yml" in result.stdout
    assert PASSWORD not in result.stdout
    result = converge(ssh_allow_groups=["nobody-is-in-it"], ssh_admit_connecting_user=False)
    assert "the user of this connection (admin) is in none of ssh_allow_groups" in " ".join(result.stdout.split())
    assert host.file(DROP_IN).mtime == before


@pytest.mark.one_release
def test_a_file_that_comes_first_is_found(host: Any, converge: Any) -> None:
    """Catches a setting of another file that wins, in silence."""
    other = "/etc/ssh/sshd_config.d/00-first.conf"
    host.check_output(f"echo 'PasswordAuthentication yes' | sudo tee {other}")
    assert status(host) == "pending"
    result = converge()
    assert result.returncode != 0
    assert "Another file of sshd comes first" in result.stdout
    assert "> passwordauthentication yes" in result.stdout
    host.check_output(f"sudo rm {other}")
    assert converge().returncode == 0
    assert status(host) == "current"


def test_a_lockout_takes_itself_back(host: Any, converge: Any, login: Login) -> None:
    """Catches a configuration that keeps the controller out for good; the run after it gets in and has nothing to do."""
    result = converge(ssh_extra_settings={"DenyUsers": "admin"}, ssh_revert_seconds=20)
    assert result.returncode != 0
    assert "The former one is in force again" in " ".join(result.stdout.split())
    assert login("admin").stdout.strip() == "admin"
    assert "DenyUsers" not in host.file(DROP_IN).content_string
    result = converge()
    assert result.returncode == 0, result.stdout
    assert status(host) == "current"


@pytest.mark.one_release
def test_a_configuration_that_sshd_refuses_never_lands(host: Any, converge: Any) -> None:
    """Catches a mistyped keyword that stops sshd at its next start."""
    before = host.file(DROP_IN).mtime
    result = converge(ssh_extra_settings={"PrintLastLogs": False})
    assert result.returncode != 0
    assert "Bad configuration option: PrintLastLogs" in result.stdout
    assert host.file(DROP_IN).mtime == before
    assert status(host) == "current"


@pytest.mark.one_release
def test_another_port_is_taken(host: Any, converge: Any, login: Login) -> None:
    """Catches a run that changes the port and then looks for the host at the former one."""
    result = converge(ssh_port=2022)
    assert result.returncode == 0, result.stdout
    assert "set ansible_port to 2022" in result.stdout
    assert login("admin").returncode == 255
    assert login("admin", "-p", "2022").stdout.strip() == "admin"
    # `host` would look at the former port
    code, settled = container(host).exec_run(["sh", "-c", "groundcrew-ssh status"])
    assert (code, settled) == (0, b"current\n")
    back = "cd /etc/groundcrew-ssh; sed -i 's/^Port 2022/Port 22/' wanted.conf; groundcrew-ssh try 60; groundcrew-ssh confirm"
    code, output = container(host).exec_run(["sh", "-ec", back])
    assert code == 0, output
    assert login("admin").stdout.strip() == "admin"


def test_a_run_that_dies_before_confirming_is_taken_back(host: Any, eventually: Any, login: Login) -> None:
    """Catches a timer that only the controller would start: here no controller ever comes back."""
    wanted = "/etc/groundcrew-ssh/wanted.conf"
    host.check_output(f"sudo cp {wanted} /tmp/wanted && echo 'DenyUsers admin' | sudo tee -a {wanted} && sudo groundcrew-ssh try 5")
    assert login("admin").returncode == 255
    eventually(lambda: login("admin").stdout.strip() == "admin")
    assert host.run("sudo groundcrew-ssh confirm").rc == 1
    host.check_output(f"sudo cp /tmp/wanted {wanted}")
    assert status(host) == "current"


def test_an_unconfirmed_configuration_does_not_outlive_a_reboot(host: Any, eventually: Any, login: Login, exposure: Any) -> None:
    """Catches a timer that a reboot ends, and the configuration on trial that it leaves in force for good."""
    wanted = "/etc/groundcrew-ssh/wanted.conf"
    host.check_output(f"sudo cp {wanted} {wanted}.kept && echo 'DenyUsers admin' | sudo tee -a {wanted} && sudo groundcrew-ssh try 300")
    assert login("admin").returncode == 255
    container(host).restart()
    eventually(lambda: login("admin").stdout.strip() == "admin", within=60)
    eventually(lambda: host.run("systemctl is-system-running").stdout.strip() == "running", within=60)
    host.check_output(f"sudo mv {wanted}.kept {wanted}")
    assert status(host) == "current"
    # The unit has done it, so systemd knows it
    assert exposure("groundcrew-ssh.service") <= 2.0
