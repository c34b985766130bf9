"""playbooks/upgrade.yml refuses what it could not do without an outage. How it goes is seen in the scenario upgrade."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_dynamic_inventory import environment, play, static
from tools.console import ROOT

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


def test_web_servers_restart_one_after_the_other() -> None:
    """Catches a change that restarts all edges at the same moment, so that nobody answers."""
    (book,) = yaml.safe_load((ROOT / "playbooks/web.yml").read_text(encoding="utf-8"))
    found = []
    for role in ("haproxy", "nginx", "keepalived"):
        assert role in [entry["role"] for entry in book["roles"]]
        handlers = yaml.safe_load((ROOT / f"roles/{role}/handlers/main.yml").read_text(encoding="utf-8"))
        found += [one for one in handlers if one.get("ansible.builtin.systemd_service", {}).get("name") == f"{role}.service"]
    restarts = [one for one in found if one["ansible.builtin.systemd_service"]["state"] == "restarted"]
    assert len(restarts) == 3
    assert [one["name"] for one in restarts if one.get("throttle") != 1] == []
