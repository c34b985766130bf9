"""What role base promises, asked of a host that was bare before."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import docker
import pytest

Converge = Callable[..., Any]


def container(host: Any) -> Any:
    name = host.ansible.get_variables()["inventory_hostname"]
    return docker.from_env().containers.get(f"groundcrew-base-{name}")


def as_unit(host: Any, command: str) -> str:
    """What a command says that runs as a unit of systemd."""
    return str(host.run_expect([0], f"sudo systemd-run --quiet --wait --pipe --collect sh -c '{command}'").stdout.strip())


def test_security_updates_come_from_security_only(host: Any) -> None:
    """Catches unattended upgrades that take more than security updates, or that would restart the database or the broker."""
    said = host.run_expect([0], "sudo LC_ALL=C unattended-upgrade --dry-run --debug 2>&1").stdout
    allowed = next(line for line in said.splitlines() if line.startswith("Allowed origins are:"))
    origins = allowed.split(": ")[1].split(", ")
    assert origins
    assert all("label=Debian-Security" in origin for origin in origins)
    assert "Initial blacklist: postgresql redis valkey" in said


def test_security_updates_run_every_day(host: Any) -> None:
    """Catches upgrades that are installed and never start: apt's daily timer reads these two switches."""
    said = host.run_expect([0], "apt-config dump").stdout
    assert 'APT::Periodic::Unattended-Upgrade "1";' in said
    assert 'APT::Periodic::Update-Package-Lists "1";' in said
    assert host.service("apt-daily-upgrade.timer").is_running


def test_operators_authority_is_trusted(host: Any) -> None:
    """Catches an authority that lies in a folder but that no TLS client trusts."""
    ask = "import ssl; print([c for c in ssl.create_default_context().get_ca_certs() if 'Groundcrew test authority' in str(c)])"
    assert host.run_expect([0], f'python3 -c "{ask}"').stdout.strip() != "[]"


def test_time_zone(host: Any) -> None:
    """Catches a host that logs in another time zone than it was told."""
    assert host.run_expect([0], "date --date=2026-07-01T12:00Z +%H%Z").stdout.strip() == "14CEST"
    assert "Europe/Paris" in host.run_expect([0], "timedatectl").stdout


def test_locale(host: Any) -> None:
    """Catches a locale that is named but was not generated, or that no login gets."""
    said = host.run_expect([0], "sudo su - admin -c 'echo $LANG; locale -k decimal_point' 2>&1").stdout
    assert said.split() == ["de_DE.UTF-8", 'decimal_point=","']


def test_limit_of_open_files(host: Any) -> None:
    """Catches a limit that stands in a file and that units do not get."""
    assert as_unit(host, "ulimit -Sn") == "9000"


def test_no_time_service_in_a_container(host: Any) -> None:
    """Catches a time service that fails or fights for a clock that the container may not set."""
    assert not host.package("chrony").is_installed


def test_journal_is_bounded(host: Any) -> None:
    """Catches a journal that fills the disk."""
    said = host.run_expect([0], "sudo journalctl --unit=systemd-journald --grep='System Journal' --output=cat").stdout
    assert "max 64" in said.splitlines()[-1]


def test_killed_run_is_healed(host: Any, converge: Converge) -> None:
    """Catches a run that stops at "dpkg was interrupted", and settings that systemd has never read, after one that was killed."""
    system = "/etc/systemd/system.conf.d/groundcrew.conf"
    host.run_expect([0], "dpkg --status hostname | sudo tee /var/lib/dpkg/updates/0000")
    host.run_expect([0], f"sudo sed -i.kept s/9000/8000/ {system} && sudo systemctl daemon-reload && sudo mv {system}.kept {system}")
    assert as_unit(host, "ulimit -Sn") == "8000"
    assert "dpkg was interrupted" in host.run("sudo apt-get --yes install hostname").stderr
    result = converge()
    assert result.returncode == 0, result.stdout
    host.run_expect([0], "sudo apt-get --yes install hostname")
    assert as_unit(host, "ulimit -Sn") == "9000"


@pytest.mark.one_release
def test_swap_that_is_newly_asked_for_can_be_checked(host: Any, converge: Converge) -> None:
    """Catches a check run that starts the unit of a swap file, or the time service, that is not written yet."""
    host.run_expect([0], "sudo apt-get --yes --no-install-recommends install chrony")
    try:
        result = converge("--check", __base_container=False, base_swap_size_mb=1)
    finally:
        host.run_expect([0], "sudo apt-get --yes purge chrony")
    assert result.returncode == 0, result.stdout
    assert "Describe the swap file to systemd" in result.stdout


@pytest.mark.one_release
def test_unsupported_release_is_refused(host: Any, converge: Converge) -> None:
    """Catches a run that sets off on a release nobody tested."""
    host.run_expect([0], "echo 11.9 > /tmp/older && sudo mount --bind /tmp/older /etc/debian_version")
    try:
        result = converge("--check")
    finally:
        host.run_expect([0], "sudo umount /etc/debian_version")
    assert result.returncode != 0
    assert "base_accept_unsupported_release" in result.stdout


def test_proxy_is_asked_by_apt_units_and_logins(host: Any, converge: Converge, eventually: Any) -> None:
    """Catches a proxy that is set and not used."""
    ask = "/usr/bin/python3 -c 'import urllib.request as r; r.urlopen(\"http://{}.test.example/\")'"
    host.run_expect([0], "sudo systemd-run --collect --unit=proxy /usr/bin/python3 -u -m http.server 3128 --bind 127.0.0.1")
    try:
        assert eventually(lambda: host.socket("tcp://127.0.0.1:3128").is_listening)
        result = converge(base_http_proxy="http://127.0.0.1:3128")
        assert result.returncode == 0, result.stdout
        host.run("sudo apt-get update; sudo systemd-run --wait --collect " + ask.format("unit"))
        host.run("bash --login -c %s", ask.format("login"))
        asked = host.run("sudo journalctl --output=cat --unit=proxy").stdout
    finally:
        host.run("sudo systemctl stop proxy")
        assert converge().returncode == 0
    assert re.search(r'"(GET|CONNECT) (?!http://\w+\.test\.example/)', asked), asked
    assert "GET http://unit.test.example/" in asked
    assert "GET http://login.test.example/" in asked


def test_journal_outlives_a_restart(host: Any, eventually: Any) -> None:
    """Catches a journal in memory: what was said before a crash is what one wants to read after it. And nothing fails at boot."""
    host.run_expect([0], "echo said-before-the-restart | systemd-cat --identifier=groundcrew-test && sudo journalctl --sync")
    container(host).restart()
    eventually(lambda: host.run("systemctl is-system-running").stdout.strip() == "running", within=90)
    assert "said-before-the-restart" in host.run_expect([0], "sudo journalctl --output=cat --identifier=groundcrew-test").stdout
