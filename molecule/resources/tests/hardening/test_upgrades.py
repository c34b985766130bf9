"""What role upgrades promises: a restart in the host's slot, and at no other time."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import docker

Converge = Callable[..., Any]
UNIT = "groundcrew-reboot.service"
PLAYBOOK = "molecule/hardening/upgrades.yml"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def container(host: Any) -> Any:
    name = host.ansible.get_variables()["inventory_hostname"]
    return docker.from_env().containers.get(f"groundcrew-hardening-{name}")


def slot(minutes_from_now: float) -> dict[str, Any]:
    """A window of one slot that opens at the first full minute after so many minutes."""
    opens = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=minutes_from_now + 1)
    return {"days": [DAYS[opens.weekday()]], "start": f"{opens:%H:%M}", "minutes": 10}


def said(host: Any) -> str:
    return str(host.run_expect([0], f"sudo journalctl --output=cat --unit={UNIT}").stdout)


def test_the_unit_is_confined(host: Any, exposure: Callable[[str], float]) -> None:
    """Catches rights that a unit which asks for a restart does not need."""
    with host.sudo():
        assert exposure(UNIT) <= 2.0


def test_nothing_restarts_outside_of_the_slot(host: Any, converge: Converge) -> None:
    """Catches a timer that is late, or a start by hand, that restarts the host in the slot of another one."""
    assert converge(playbook=PLAYBOOK, upgrades_window=slot(120), upgrades_slot_minutes=10).returncode == 0
    restarts = said(host).count("Restart:")
    host.run_expect([0], f"sudo systemctl start {UNIT}")
    assert "nothing asks for one" in said(host)
    host.run_expect([0], "sudo touch /run/reboot-required && echo linux-image-test | sudo tee /run/reboot-required.pkgs")
    host.run_expect([0], f"sudo systemctl start {UNIT}")
    assert "No restart, though its updates ask for it (linux-image-test): the host's slot is not now" in said(host)
    assert said(host).count("Restart:") == restarts


def test_the_host_restarts_by_itself_in_its_slot(host: Any, converge: Converge, eventually: Any) -> None:
    """Catches a timer that nothing starts, commands before the restart that do not run, and hardening that a restart undoes."""
    host.run_expect([0], "sudo touch /run/reboot-required")
    window, restarts = slot(1), said(host).count("Restart:")
    commands = [f"echo {window['start']} >> /var/lib/before-reboot"]
    assert converge(playbook=PLAYBOOK, upgrades_window=window, upgrades_slot_minutes=10, upgrades_before_reboot=commands).returncode == 0
    before, started = container(host), container(host).attrs["State"]["StartedAt"]
    print(f"slot at {window['start']}, now {datetime.datetime.now(datetime.UTC):%H:%M:%S}")

    def gone() -> bool:
        before.reload()
        return bool(before.status != "running" or before.attrs["State"]["StartedAt"] != started)

    eventually(gone, within=240)
    # The engine of a machine that is restarted; a server's own firmware does that
    before.start()
    eventually(lambda: host.run("systemctl is-system-running").stdout.strip() == "running", within=90)
    assert host.run_expect([0], "sudo cat /var/lib/before-reboot").stdout.splitlines()[-1] == window["start"]
    assert said(host).count("Restart: its updates ask for it") == restarts + 1
    assert not host.file("/run/reboot-required").exists
    # What must have come back by itself
    assert "systemd-journald" not in host.run_expect([0], "ps -e -o args").stdout
    assert "noexec" in host.run_expect([0], "findmnt --noheadings --output OPTIONS /dev/shm").stdout
    assert host.run_expect([0], "rm -f made; touch made && stat --format=%a made").stdout.strip() == "640"
