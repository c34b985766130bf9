"""The restart of the host, after everything else was tested on it."""

from __future__ import annotations

import os
from typing import Any

import docker


def running(host: Any) -> list[str]:
    """Return the application server's units that run."""
    return str(host.check_output("systemctl list-units --state=active --plain --no-legend 'textreport-web@*' | cut -d' ' -f1")).split()


def test_everything_answers_after_a_restart(host: Any, site: Any, eventually: Any) -> None:
    """Catches a unit that is not enabled, an order that only holds by chance, and state that lived in /run."""
    label = f"groundcrew.scenario={os.environ['MOLECULE_SCENARIO_NAME']}"
    (container,) = docker.from_env().containers.list(filters={"label": label})
    before = site.request("POST", "/api/reports", {"text": "before the restart"}).headers["Location"]
    assert eventually(lambda: site.finished(before))
    container.restart(timeout=60)
    assert eventually(site.ready, within=120)
    assert site.finished(before)
    after = site.request("POST", "/api/reports", {"text": "after the restart"}).headers["Location"]
    assert eventually(lambda: site.finished(after))
    assert eventually(lambda: host.run("systemctl is-system-running").stdout.strip() == "running")
    assert {name.split("@")[1].split(".")[0] for name in running(host)} == {host.check_output("readlink /srv/textreport/web/live")}
    with host.sudo():
        assert "policy drop" in host.check_output("nft list ruleset")
