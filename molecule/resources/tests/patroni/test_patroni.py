"""The tier of the database: who may talk to it, and what becomes of acknowledged writes when a part of it goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

HOSTS = ("db1", "db2", "db3")
EVENTUALLY = Callable[..., Any]
LOST = Callable[..., set[int]]
# What a leader lost may cost, and what a move may
AWAY_SECONDS, MOVE_SECONDS = 30.0, 10.0
CA = "/etc/ssl/groundcrew/ca.pem"
PEER = "/etc/ssl/groundcrew/peer"
MORE = '-e{"postgresql_max_connections": 120}'
STRANGER = "/run/stranger"


@pytest.fixture(autouse=True)
def whole(cluster: Any, eventually: EVENTUALLY) -> None:
    """Begin each test with a leader and two that follow."""
    eventually(cluster.well, within=90)


def follower(cluster: Any) -> str:
    return next(str(name) for name, one in cluster.members().items() if one["Role"] == "Replica")


def test_a_single_server_became_the_leader_with_its_data(cluster: Any) -> None:
    """Catches a cluster that begins empty beside the data that there was, and a follower without it."""
    for name in HOSTS:
        assert cluster.ask(name, "SELECT count(*), sum(number) FROM before", "textreport") == "100000|5000050000"
        assert cluster.ask(name, "SHOW data_checksums") == "on"
        code, said = cluster.run(name, "systemctl", "start", "postgresql@15-main.service")
        assert code != 0
        assert "masked" in said


def test_units_are_sandboxed(cluster: Any) -> None:
    """Catches units that run as Debian packages them (exposure 9.2)."""
    for unit in ("patroni.service", "etcd.service"):
        said = cluster.console("db1", "systemd-analyze", "security", "--no-pager", unit)
        assert float(said.rsplit("level for ", 1)[1].split()[1]) <= 2.0, said


def stranger(cluster: Any, name: str) -> None:
    """Have a certificate on a host with the right name, of an authority that nobody knows."""
    script = f"""umask 077; mkdir -p {STRANGER}; cd {STRANGER}; test -e key.pem || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 \
        -nodes -days 2 -keyout key.pem -out cert.pem -subj /CN={cluster.address(name)}"""
    cluster.console(name, "sh", "-c", script)


def test_members_replicate_over_tls_by_certificate_alone(cluster: Any) -> None:
    """Catches replication in the clear, and a copy of all data for whoever reaches the port."""
    leader, other = cluster.leader(), follower(cluster)
    assert (
        cluster.ask(leader, "SELECT count(*) FROM pg_stat_replication JOIN pg_stat_ssl USING (pid) WHERE ssl AND version >= 'TLSv1.2'")
        == "2"
    )
    stranger(cluster, other)
    physical = f"host={cluster.address(leader)} user=patroni_replication replication=true connect_timeout=3"
    own = f"sslcert={PEER}/fullchain.pem sslkey={PEER}/privkey.pem sslrootcert={CA}"

    assert cluster.run(other, "psql", "-XAtq", f"{physical} sslmode=verify-full {own}", "-c", "IDENTIFY_SYSTEM")[0] == 0
    for options in (
        "sslmode=disable",
        f"sslmode=verify-full sslrootcert={CA}",
        f"sslmode=require sslcert={STRANGER}/cert.pem sslkey={STRANGER}/key.pem",
    ):
        code, said = cluster.run(other, "psql", "-XAtq", f"{physical} {options}", "-c", "IDENTIFY_SYSTEM")
        assert code != 0
        assert "pg_hba.conf" in said or "certificate" in said or "unknown ca" in said, f"{options}: {said}"
    # An application's password goes over TLS only
    code, said = cluster.run(
        other, "psql", "-XAtq", f"host={cluster.address(leader)} user=textreport dbname=textreport sslmode=disable", "-c", "SELECT 1"
    )
    assert code != 0
    assert "no encryption" in said


def curl(cluster: Any, name: str, *options: str) -> tuple[int, str]:
    code, said = cluster.run(name, "curl", "-sS", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", *options)
    return int(code), str(said)


def test_whoever_changes_something_shows_a_certificate(cluster: Any) -> None:
    """Catches a leader that anybody moves, and an etcd that anybody writes to."""
    leader, other = cluster.leader(), follower(cluster)
    stranger(cluster, other)
    patroni, etcd = (f"https://{cluster.address(leader)}:{port}" for port in (8008, 2379))
    known = ["--cacert", CA, "--cert", f"{PEER}/fullchain.pem", "--key", f"{PEER}/privkey.pem"]
    unknown = ["--cacert", CA, "--cert", f"{STRANGER}/cert.pem", "--key", f"{STRANGER}/key.pem"]
    # A change to what is so already
    change = ["-X", "PATCH", "-d", '{"loop_wait": 5}', f"{patroni}/config"]
    assert curl(cluster, other, "--cacert", CA, f"{patroni}/leader") == (0, "200")
    assert curl(cluster, other, *known, *change) == (0, "200")
    assert curl(cluster, other, "--cacert", CA, *change) == (0, "403")
    assert curl(cluster, other, *unknown, *change)[0] != 0
    assert curl(cluster, other, f"http://{cluster.address(leader)}:8008/leader")[0] != 0
    assert curl(cluster, other, *known, f"{etcd}/version") == (0, "200")
    for refused in (["--cacert", CA], unknown):
        assert curl(cluster, other, *refused, f"{etcd}/version")[0] != 0
    assert curl(cluster, other, f"http://{cluster.address(leader)}:2379/version")[1] != "200"
    assert curl(cluster, other, "--cacert", CA, f"https://{cluster.address(leader)}:2380/members")[0] != 0


def test_a_killed_leader_loses_no_acknowledged_write(cluster: Any, eventually: EVENTUALLY, lost: LOST) -> None:
    """Catches a leader that stays down, one that is replaced too late, and commits that were on its disk alone."""
    leader = cluster.leader()
    writer = cluster.writer(follower(cluster), "killed")
    eventually(lambda: cluster.written("killed") > 20)
    cluster.console(leader, "pkill", "-KILL", "-u", "postgres", "-x", "postgres")
    before = writer.acknowledged()
    eventually(lambda: writer.acknowledged() > before + 20 and cluster.well(), within=90)
    writes = writer.stop()
    print(f"leader killed: {len(writes.numbers)} writes acknowledged, none for {writes.away:.1f} s")
    assert lost(writer, writes) == set()
    assert writes.away < AWAY_SECONDS


def test_a_leader_without_patroni_goes_on_or_is_replaced(cluster: Any, eventually: EVENTUALLY) -> None:
    """Catches a server that dies with the program that watches it."""
    leader = cluster.leader()
    begun = cluster.ask(leader, "SELECT pg_postmaster_start_time()")
    cluster.console(leader, "systemctl", "kill", "--kill-who=main", "--signal=KILL", "patroni.service")
    eventually(
        lambda: cluster.console(leader, "systemctl", "show", "-P", "ActiveState", "patroni.service").strip() == "active" and cluster.well(),
        within=60,
    )
    assert cluster.leader() == leader
    assert cluster.ask(leader, "SELECT pg_postmaster_start_time()") == begun


def test_the_leader_moves_when_it_is_asked_to(cluster: Any, lost: LOST) -> None:
    """Catches a planned move that costs more than seconds, and one to a member that lacks commits."""
    before = cluster.leader()
    refused = cluster.playbook("playbooks/switchover.yml", f"-eswitchover_to={follower(cluster)}")
    assert refused.returncode != 0
    assert "Nothing was moved" in refused.stdout
    writer = cluster.writer(before, "moved")
    done = cluster.playbook("playbooks/switchover.yml")
    writes = writer.stop()
    assert done.returncode == 0, done.stdout[-2000:]
    assert cluster.leader() != before
    assert "leads in place of" in done.stdout
    print(f"leader moved: none of {len(writes.numbers)} writes for {writes.away:.1f} s")
    assert lost(writer, writes) == set()
    assert writes.away < MOVE_SECONDS


def test_what_a_server_refuses_leaves_the_cluster_as_it_was(cluster: Any, eventually: EVENTUALLY, lost: LOST) -> None:
    """Catches a bad setting that takes one member after the other down, or stays until the next restart."""
    leader = cluster.leader()
    begun = cluster.ask(leader, "SELECT pg_postmaster_start_time()")
    writer = cluster.writer("db1", "refused")
    done = cluster.playbook(
        "playbooks/database.yml", '-e{"postgresql_extra_settings": {"shared_preload_libraries": "pg_stat_statements,missing"}}'
    )
    writes = writer.stop()
    assert done.returncode != 0
    assert "what they had was put back" in done.stdout, done.stdout[-3000:]
    eventually(cluster.well, within=60)
    assert cluster.leader() == leader
    assert cluster.ask(leader, "SELECT pg_postmaster_start_time()") == begun
    assert {cluster.ask(name, "SELECT count(*) FROM pg_file_settings WHERE setting ~ 'missing'") for name in HOSTS} == {"0"}
    assert lost(writer, writes) == set()
    assert writes.away < 2


@pytest.mark.parametrize("parameters", ['{"work_mem": "much"}', '{"max_connections": 100, "shared_preload_libraries": "missing"}'])
def test_what_members_agree_on_is_what_servers_take(cluster: Any, eventually: EVENTUALLY, parameters: str) -> None:
    """Catches a setting that no server starts with, and that stays in etcd once the run has failed."""
    agreed = cluster.console("db1", "patronictl", "-c", "/etc/patroni/config.yml", "show-config")
    done = cluster.playbook("playbooks/database.yml", f'-e{{"patroni_parameters": {parameters}}}')
    assert done.returncode != 0
    assert cluster.console("db1", "patronictl", "-c", "/etc/patroni/config.yml", "show-config") == agreed, done.stdout[-3000:]
    eventually(cluster.well, within=90)
    assert cluster.playbook("playbooks/database.yml").returncode == 0


def etcdctl(cluster: Any, name: str, *words: str) -> str:
    tls = (f"--cert={PEER}/fullchain.pem", f"--key={PEER}/privkey.pem", f"--cacert={CA}")
    return str(cluster.console(name, "etcdctl", *tls, *words))


def test_a_member_of_etcd_that_nobody_names_is_refused(cluster: Any) -> None:
    """Catches a member that has left the inventory, and whose vote the others go on to need."""
    added = etcdctl(cluster, "db1", "member", "add", "db9", "--peer-urls=https://192.0.2.9:2380")
    identity = added.split()[1]
    try:
        refused = cluster.playbook("playbooks/preflight_database.yml")
    finally:
        etcdctl(cluster, "db1", "member", "remove", identity)
    assert refused.returncode != 0
    assert f"member remove {identity}" in " ".join(refused.stdout.split()), refused.stdout[-2000:]
    assert cluster.playbook("playbooks/preflight_database.yml").returncode == 0


def test_a_member_of_etcd_that_has_lost_its_data_is_taken_in_again(cluster: Any, eventually: EVENTUALLY) -> None:
    """Catches one that comes back by itself as who it was, with its votes forgotten, and one that never comes back."""
    name = follower(cluster)
    cluster.console(name, "sh", "-c", "systemctl stop etcd; rm -rf /var/lib/etcd/cluster/*; systemctl start etcd")
    assert cluster.run(name, "systemctl", "is-active", "etcd")[1].strip() == "inactive"
    eventually(cluster.well, within=60)
    done = cluster.playbook("playbooks/database.yml")
    assert done.returncode == 0, done.stdout[-3000:]
    assert cluster.run(name, "test", "-e", "/etc/etcd/join.env")[0] != 0
    assert etcdctl(cluster, name, "endpoint", "health")
    assert etcdctl(cluster, "db1", "member", "list").count(", started, ") == 3
    assert cluster.playbook("playbooks/database.yml").stdout.count("changed=0 ") == 3


def test_settings_that_need_a_restart_get_it_one_by_one(cluster: Any, lost: LOST) -> None:
    """Catches members that restart together, and a setting that waits for a restart for ever."""
    writer = cluster.writer("db1", "restarted")
    done = cluster.playbook("playbooks/database.yml", MORE)
    writes = writer.stop()
    assert done.returncode == 0, done.stdout[-3000:]
    assert {cluster.ask(name, "SHOW max_connections") for name in HOSTS} == {"120"}
    print(f"members restarted: none of {len(writes.numbers)} writes for {writes.away:.1f} s")
    assert lost(writer, writes) == set()
    assert writes.away < MOVE_SECONDS


def test_a_host_rebuilt_from_nothing_rejoins(cluster: Any, eventually: EVENTUALLY, lost: LOST) -> None:
    """Catches an etcd that a member without data cannot join again, a copy that never begins, and data of another system that is deleted."""
    name = next(one for one in HOSTS if one != cluster.leader())
    cluster.console(name, "systemctl", "stop", "patroni", "etcd")
    units = "/etc/systemd/system/patroni.service.d /etc/systemd/system/etcd.service.d"
    data = "/var/lib/etcd/* /var/lib/postgresql/*"
    gone = f"rm -rf {units} {data} /etc/patroni/config.yml /etc/etcd /etc/postgresql/*"
    cluster.console(name, "sh", "-c", f"{gone}; systemctl daemon-reload")
    # First as a host with a database of its own
    cluster.console(name, "install", "-d", "-o", "postgres", "-g", "postgres", "/var/lib/postgresql/15")
    cluster.console(name, "runuser", "-u", "postgres", "--", "/usr/lib/postgresql/15/bin/initdb", "-D", "/var/lib/postgresql/15/main")
    refused = cluster.playbook("playbooks/preflight_database.yml")
    assert refused.returncode != 0
    assert f"{name} has a database of its own" in " ".join(refused.stdout.split()), refused.stdout[-2000:]
    assert cluster.run(name, "test", "-e", "/var/lib/postgresql/15/main/PG_VERSION")[0] == 0
    cluster.console(name, "sh", "-c", "rm -rf /var/lib/postgresql/*")
    # As a host that is new to the others, whose rules of access it is not in yet
    rules = "/etc/postgresql/15/main/pg_hba.conf"
    for other in HOSTS:
        if other != name:
            cluster.console(other, "sed", "-i", f"/replication.*{cluster.address(name)}/d", rules)
            assert cluster.ask(other, "SELECT pg_reload_conf()") == "t"
            named = cluster.ask(other, "SELECT address FROM pg_hba_file_rules WHERE 'replication' = ANY (database)").split()
            assert cluster.address(name) not in named
    writer = cluster.writer(name, "rebuilt")
    done = cluster.playbook("playbooks/database.yml", MORE)
    eventually(cluster.well, within=60)
    writes = writer.stop()
    assert done.returncode == 0, done.stdout[-3000:]
    assert cluster.ask(name, "SELECT count(*) FROM before", "textreport") == "100000"
    said = cluster.console(
        name,
        "sh",
        "-c",
        f"etcdctl --cert={PEER}/fullchain.pem --key={PEER}/privkey.pem --cacert={CA} "
        f"--endpoints={','.join(f'https://{cluster.address(one)}:2379' for one in HOSTS)} endpoint health 2>&1",
    )
    assert said.count("is healthy") == 3
    assert lost(writer, writes) == set()
    assert writes.away < MOVE_SECONDS
    assert cluster.playbook("playbooks/database.yml", MORE).stdout.count("changed=0 ") == 3


def test_all_hosts_restarted_at_once_come_back(cluster: Any, eventually: EVENTUALLY, lost: LOST) -> None:
    """Catches services that wait for each other for ever, and what was acknowledged just before."""
    writer = cluster.writer("db1", "together")
    eventually(lambda: cluster.written("together") > 20)
    for name in HOSTS:
        cluster.container(name).kill()
    killed = time.monotonic()
    writes = writer.stop()
    for name in HOSTS:
        cluster.container(name).start()
    # The members' list is from before the kill for a while, and a query is not
    eventually(lambda: cluster.ask(cluster.leader(), "SELECT pg_is_in_recovery()") == "f", within=120)
    eventually(cluster.well, within=120)
    print(f"all hosts without power: whole again after {time.monotonic() - killed:.1f} s")
    assert lost(writer, writes) == set()
