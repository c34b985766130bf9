"""What role upgrades promises: a restart in the host's slot, and at no other time."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest

Converge = Callable[..., Any]
UNIT = "groundcrew-reboot.service"


@pytest.fixture
def later() -> dict[str, Any]:
    """A window of one slot that opens in two hours."""
    opens = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=2)
    return {"days": [f"{opens:%a}".lower()], "start": f"{opens:%H:%M}", "minutes": 10}


def said(host: Any) -> str:
    return str(host.run_expect([0], f"sudo journalctl --output=cat --unit={UNIT}").stdout)


def test_the_unit_is_confined(host: Any, exposure: Callable[[str], float]) -> None:
    """Catches rights that a unit which asks for a restart does not need."""
    with host.sudo():
        assert exposure(UNIT) <= 2.0


def test_nothing_restarts_outside_of_the_slot(host: Any, converge: Converge, later: dict[str, Any]) -> None:
    """Catches a timer that is late, or a start by hand, that restarts the host in the slot of another one."""
    assert converge(playbook="molecule/hardening/upgrades.yml", upgrades_window=later, upgrades_slot_minutes=10).returncode == 0
    restarts = said(host).count("Restart:")
    host.run_expect([0], f"sudo systemctl start {UNIT}")
    assert "nothing asks for one" in said(host)
    host.run_expect([0], "sudo touch /run/reboot-required && echo linux-image-test | sudo tee /run/reboot-required.pkgs")
    host.run_expect([0], f"sudo systemctl start {UNIT}")
    assert "No restart, though its updates ask for it (linux-image-test): the host's slot is not now" in said(host)
    assert said(host).count("Restart:") == restarts
