"""Faults with reads and writes running; each acknowledged write is looked for afterwards. Figures: docs/failover.md.

Beside a drill is the same one with its protection switched off, which has to find what the protection is there against.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tools.console import ROOT
from tools.drills import DATA, HOSTS, Cluster, NotYet, Outcome, measured, wait

# Seconds without a successful write, at most
DATABASE, CACHE, EDGE = 30, 15, 3


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Return the scenario's hosts; says in the end what the drills have measured."""
    yield from measured()


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


def cut_leader(cluster: Cluster, name: str, *, synchronous: bool = True) -> Outcome:
    """Cut the leader from the other database hosts for as long as they need to replace it; the application still reaches it."""
    cluster.well()
    leader = cluster.leader()
    others = [one for one in DATA if one != leader]
    try:
        with cluster.drill(name) as found:
            if not synchronous:
                cluster.synchronous(commits=False)
            cluster.cut(leader, DATA)
            wait("another leader", lambda: any(cluster.ask(one, "SELECT pg_is_in_recovery()") == "f" for one in others), 60)
            cluster.mend(leader)
            if not synchronous:
                wait("one leader again", lambda: cluster.leader() in others, 60)
                cluster.synchronous(commits=True)
    finally:
        # Where the drill ended early, too: those that follow begin with every protection on
        with suppress(NotYet):
            cluster.mend(leader)
        if not synchronous:
            wait("one leader again", cluster.leader, 60)
            cluster.synchronous(commits=True)
    return found[0]


def test_a_leader_that_is_cut_off_acknowledges_nothing(cluster: Cluster) -> None:
    """Catches two leaders, and writes that are acknowledged by the one that will be forgotten."""
    outcome = cut_leader(cluster, "PostgreSQL: leader cut from its peers, reached by the application")
    assert whole(outcome), outcome
    assert outcome.writes_away < DATABASE, outcome


def test_without_synchronous_commits_the_same_drill_loses_writes(cluster: Cluster) -> None:
    """Catches a drill that would find nothing missing whatever happened."""
    outcome = cut_leader(cluster, "*the same, without synchronous commits*", synchronous=False)
    assert outcome.lost > 0, outcome


def test_a_lost_member_of_etcd_is_no_matter(cluster: Cluster) -> None:
    """Catches a leader that gives up because one of three members is gone."""
    cluster.well()
    leader = cluster.leader()
    with cluster.drill("etcd: member on the leader's host killed") as found:
        cluster.console(leader, "systemctl", "kill", "--signal=KILL", "etcd.service")
    (outcome,) = found
    assert whole(outcome), outcome
    assert outcome.failed == 0, outcome


def kill_primary(cluster: Cluster, name: str, *, watched: bool = True) -> Outcome:
    """Kill the broker's primary, and keep its unit from starting it again before others have noticed."""
    cluster.well()
    primary = cluster.primary()
    try:
        with cluster.drill(name) as found:
            if not watched:
                cluster.watched(on=False)
            cluster.keep_down(primary)
            if watched:
                wait("another primary", lambda: cluster.primary() != primary, 60)
            else:
                with pytest.raises(NotYet):
                    wait("another primary", lambda: cluster.primary() != primary, 1.5 * CACHE)
                cluster.give_back(primary)
    finally:
        cluster.give_back(primary)
    return found[0]


def test_a_killed_primary_is_replaced(cluster: Cluster) -> None:
    """Catches a broker that stays away, tasks that went with it, and workers that never come back to it."""
    outcome = kill_primary(cluster, "Redis: primary killed (SIGKILL), and kept down")
    assert whole(outcome), outcome
    assert outcome.writes_away < CACHE, outcome


def test_without_sentinel_the_same_drill_stays_away(cluster: Cluster) -> None:
    """Catches a drill that would come back by itself."""
    outcome = kill_primary(cluster, "*the same, without Sentinel*", watched=False)
    assert outcome.writes_away > CACHE, outcome


def test_a_paused_primary_is_replaced(cluster: Cluster) -> None:
    """Catches clients that wait for a primary that takes their connections and never answers, and one that comes back as a second."""
    cluster.well()
    primary = cluster.primary()
    try:
        with cluster.drill("Redis: primary paused (SIGSTOP)") as found:
            cluster.redis(primary, "STOP")
            wait("another primary", lambda: cluster.primary() != primary, 60)
            cluster.redis(primary, "CONT")
    finally:
        cluster.redis(primary, "CONT")
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


def stop_application_host(cluster: Cluster, name: str, *, drained: bool) -> Outcome:
    """Take the power from a host in the middle of whatever it was asked; drained or not."""

    def tell(step: str) -> None:
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        where = [f"--inventory={os.environ['MOLECULE_INVENTORY_FILE']}", "--limit=app2", f"--extra-vars={json.dumps({'step': step})}"]
        subprocess.run([program, *where, "molecule/cluster/drill/drain.yml"], cwd=ROOT, check=True, capture_output=True, timeout=120)

    try:
        with cluster.drill(name) as found:
            if drained:
                tell("drain")
            with cluster.held_writes("app1" if drained else "app2"):
                cluster.kill("app2")
    finally:
        cluster.start("app2")
        if drained:
            tell("undrain")
    return found[0]


def test_a_drained_application_host_goes_unnoticed(cluster: Cluster) -> None:
    """Catches an edge that goes on asking a host that it was told to leave."""
    outcome = stop_application_host(cluster, "application host drained, and stopped with writes under way", drained=True)
    assert whole(outcome), outcome
    assert outcome.failed == 0, outcome


def test_without_the_drain_the_same_drill_costs_requests(cluster: Cluster) -> None:
    """Catches a drill in which nothing was asked of the host."""
    outcome = stop_application_host(cluster, "*the same, not drained*", drained=False)
    assert outcome.failed > 0, outcome


def test_the_active_edge_may_go(cluster: Cluster) -> None:
    """Catches an address that stays with an edge that is gone."""
    cluster.well()
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
