"""Pools of connections are refused where their server could not serve them; what they do is seen in the scenario pool."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_dynamic_inventory import environment, play, static

TIERS = {"web1": "web", "app1": "app worker", "app2": "app worker", "db1": "db", "cache1": "cache"}


@pytest.mark.parametrize("options", [[], ["--limit=db"]], ids=["all", "db"])
def test_more_connections_than_the_server_has_are_refused(tmp_path: Path, options: list[str]) -> None:
    """Catches pools of all hosts together that take the server's last connection, found out by whoever looks after it; a run of a part too."""
    hosts = environment(tmp_path, "hosts.yml", static({host: f"10.20.0.{number}" for number, host in enumerate(TIERS, 20)}, TIERS))
    code, said = play(tmp_path, hosts, "playbooks/preflight.yml", *options, database_pooler=True, pgbouncer_pool_size=45)
    assert code != 0
    assert "The pools of 2 hosts (app1, app2) have 90 connections in all" in said, said[-3000:]
    assert "more than the 100 of postgresql_max_connections" in said
