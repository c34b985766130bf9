"""playbooks/upgrade.yml refuses what it could not do without an outage. How it goes is seen in the scenario upgrade."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.test_dynamic_inventory import environment, play, static

WHOLE = {"web1": "web", "web2": "web", "app1": "app", "app2": "app", "data1": "db cache", "data2": "db cache", "data3": "db cache"}


@pytest.mark.parametrize(
    ("tiers", "variables", "message"),
    [
        (WHOLE | {"data2": "web", "data3": "app"}, {}, "is away while that restarts: cache, db."),
        ({"all1": "web app worker db cache"}, {}, "is away while that restarts: web, app, cache, db."),
        (WHOLE, {"reboot": "yes"}, "reboot is yes: say -e reboot=always"),
        (WHOLE | {"data3": "web"}, {}, "The group db has 2 hosts"),
    ],
)
def test_what_would_be_an_outage_is_refused(tmp_path: Path, tiers: dict[str, str], variables: dict[str, Any], message: str) -> None:
    """Catches a restart of the only database that nobody has agreed to, found out by visitors."""
    hosts = environment(tmp_path, "hosts.yml", static({host: f"10.20.0.{number}" for number, host in enumerate(tiers, 20)}, tiers))
    code, said = play(tmp_path, hosts, "playbooks/preflight_upgrade.yml", **variables)
    assert code != 0
    assert message in said, said[-3000:]
