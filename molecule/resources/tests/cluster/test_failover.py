"""Faults with reads and writes running; each acknowledged write is looked for afterwards. Figures: docs/failover.md."""

from __future__ import annotations

import pytest
from drills import DATA, Cluster, Outcome, wait

DATABASE_SECONDS, CACHE_SECONDS, EDGE_SECONDS = 30, 15, 3


def whole(outcome: Outcome) -> bool:
    return (outcome.lost, outcome.unfinished) == (0, 0)


def test_a_killed_leader_is_replaced(cluster: Cluster) -> None:
    """Catches a leader whose process is gone and that nobody replaces, and a commit that was on its disk alone."""
    with cluster.drill("PostgreSQL: leader killed") as found:
        leader = cluster.leader()
        cluster.console(leader, "pkill", "-KILL", "-u", "postgres", "-x", "postgres")
    (outcome,) = found
    assert whole(outcome), outcome
    assert outcome.writes_away < DATABASE_SECONDS, outcome


def test_a_leader_whose_host_is_gone_is_replaced(cluster: Cluster) -> None:
    """Catches a client that waits for a host that answers nothing any more, and a quorum that takes too long."""
    leader = cluster.leader()
    try:
        with cluster.drill("PostgreSQL: leader's host stopped") as found:
            cluster.kill(leader)
            wait("another leader", lambda: cluster.leader() != leader, 60)
    finally:
        cluster.start(leader)
    (outcome,) = found
    assert whole(outcome), outcome
    assert outcome.writes_away < DATABASE_SECONDS, outcome


def cut_leader(cluster: Cluster, name: str) -> Outcome:
    """Cut the leader from the other database hosts for as long as they need to replace it; the application still reaches it."""
    leader = cluster.leader()
    try:
        with cluster.drill(name) as found:
            cluster.cut(leader, DATA)
            others = [one for one in DATA if one != leader]
            wait("another leader", lambda: any(cluster.ask(one, "SELECT pg_is_in_recovery()") == "f" for one in others), 60)
    finally:
        cluster.mend(leader)
    return found[0]


def test_a_leader_that_is_cut_off_acknowledges_nothing(cluster: Cluster) -> None:
    """Catches two leaders, and writes that are acknowledged by the one that will be forgotten."""
    outcome = cut_leader(cluster, "PostgreSQL: leader cut from its peers")
    assert whole(outcome), outcome
    assert outcome.writes_away < DATABASE_SECONDS, outcome
