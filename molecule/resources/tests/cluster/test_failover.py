"""Faults with reads and writes running; each acknowledged write is looked for afterwards. Figures: docs/failover.md."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tools import engine
from tools.console import say
from tools.drills import DATA, HOSTS, Cluster, NotYet, Outcome, generated, table, wait

# Seconds without a successful write, at most
DATABASE, CACHE, EDGE = 30, 15, 3


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Return the scenario's hosts; says in the end what the drills have measured."""
    made = Cluster(engine.connect(), generated() / "ca/ca.pem", "")
    made.address = made.host_address("edge1").rsplit(".", 1)[0] + ".200"
    yield made
    say(table(made.outcomes))


def whole(outcome: Outcome) -> bool:
    return (outcome.lost, outcome.unfinished) == (0, 0)


def test_a_killed_leader_is_replaced(cluster: Cluster) -> None:
    """Catches a leader whose process is gone and that nobody replaces, and a commit that was on its disk alone."""
    with cluster.drill("PostgreSQL: leader killed (SIGKILL)") as found:
        cluster.console(cluster.leader(), "pkill", "-KILL", "-u", "postgres", "-x", "postgres")
    (outcome,) = found
    assert whole(outcome), outcome
    assert outcome.writes_away < DATABASE, outcome


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
    assert outcome.writes_away < DATABASE, outcome


def cut_leader(cluster: Cluster, name: str) -> Outcome:
    """Cut the leader from the other database hosts for as long as they need to replace it; the application still reaches it."""
    leader = cluster.leader()
    others = [one for one in DATA if one != leader]
    try:
        with cluster.drill(name) as found:
            cluster.cut(leader, DATA)
            wait("another leader", lambda: any(cluster.ask(one, "SELECT pg_is_in_recovery()") == "f" for one in others), 60)
            cluster.mend(leader)
    finally:
        with suppress(NotYet):
            cluster.mend(leader)
    return found[0]


def test_a_leader_that_is_cut_off_acknowledges_nothing(cluster: Cluster) -> None:
    """Catches two leaders, and writes that are acknowledged by the one that will be forgotten."""
    outcome = cut_leader(cluster, "PostgreSQL: leader cut from its peers")
    assert whole(outcome), outcome
    assert outcome.writes_away < DATABASE, outcome


def test_a_lost_member_of_etcd_is_no_matter(cluster: Cluster) -> None:
    """Catches a leader that gives up because one of three members is gone."""
    leader = cluster.leader()
    with cluster.drill("etcd: member on the leader's host killed") as found:
        cluster.console(leader, "systemctl", "kill", "--signal=KILL", "etcd.service")
    (outcome,) = found
    assert whole(outcome), outcome
    assert outcome.failed == 0, outcome


def test_a_killed_primary_is_replaced(cluster: Cluster) -> None:
    """Catches a broker that stays away, tasks that went with it, and workers that never come back to it."""
    primary, unit = cluster.primary(), "redis-server@broker.service"
    try:
        with cluster.drill("Redis: primary killed (SIGKILL), and kept down") as found:
            # Its unit would start it again before others have noticed
            cluster.console(primary, "systemctl", "mask", "--runtime", unit)
            cluster.console(primary, "systemctl", "kill", "--signal=KILL", unit)
            wait("another primary", lambda: cluster.primary() != primary, 60)
    finally:
        cluster.console(primary, "systemctl", "unmask", "--runtime", unit)
        cluster.console(primary, "systemctl", "start", unit)
    (outcome,) = found
    assert whole(outcome), outcome
    assert outcome.writes_away < CACHE, outcome


def test_an_application_host_may_go(cluster: Cluster) -> None:
    """Catches an edge that goes on asking a host that is gone, and tasks that went with its workers."""
    try:
        with cluster.drill("application host and its workers stopped") as found:
            cluster.kill("app2")
    finally:
        cluster.start("app2")
    (outcome,) = found
    assert whole(outcome), outcome
    # What was in flight on it: far below what is asked in the seconds until its checks fail
    assert outcome.failed <= 4, outcome


def test_the_active_edge_may_go(cluster: Cluster) -> None:
    """Catches an address that stays with an edge that is gone."""
    (active,) = cluster.holders()
    try:
        with cluster.drill("active edge stopped") as found:
            cluster.kill(active)
    finally:
        cluster.start(active)
    (outcome,) = found
    assert whole(outcome), outcome
    assert max(outcome.writes_away, outcome.reads_away) < EDGE, outcome


def test_everything_may_restart_at_once(cluster: Cluster) -> None:
    """Catches a cluster that needs somebody to say which of its hosts was the first, and what was only in memory."""
    with cluster.drill("all hosts restarted at once") as found, ThreadPoolExecutor() as pool:
        list(pool.map(cluster.kill, HOSTS))
        list(pool.map(cluster.start, HOSTS))
    (outcome,) = found
    assert whole(outcome), outcome
    cluster.well()
