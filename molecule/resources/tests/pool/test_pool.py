"""Pools of connections: who gets in, what clients share, and what becomes of writes when the leader behind the pool goes."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

testinfra_hosts = ["ansible://db3"]
EVENTUALLY = Callable[..., Any]
# What a leader lost may cost
AWAY_SECONDS = 30.0
# As many threads as there are clients, each with a connection of its own, which all are open before any ends: each executes a statement more
# often than the driver does before it prepares it
CLIENTS = """
import psycopg, sys, threading
url, clients = sys.argv[1], int(sys.argv[2])
everybody, pids, failed = threading.Barrier(clients, timeout=60), set(), []
def work(client):
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            everybody.wait()
            for number in range(20):
                got, pid = connection.execute("SELECT %s::int + %s::int, pg_backend_pid()", (client, number)).fetchone()
                pids.add(pid)
                if got != client + number:
                    failed.append(f"{client} + {number} = {got}")
            everybody.wait()
    except Exception as error:
        everybody.abort()
        failed.append(repr(error))
threads = [threading.Thread(target=work, args=(client,)) for client in range(clients)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(pids), failed[:3])
"""


@pytest.fixture(autouse=True)
def whole(pool: Any, eventually: EVENTUALLY) -> None:
    """Begin each test with a leader and two that follow."""
    eventually(pool.well, within=120)


def test_many_clients_share_few_connections_and_what_they_prepare(pool: Any) -> None:
    """Catches a connection for each client, and a statement that was prepared in another connection than the one that has to execute it."""
    said = pool.said("db3", "python3", "-c", CLIENTS, pool.url(), "60", user="nobody")
    print(f"60 clients at once, connections to the server and failures: {said}")
    connections, failures = said.split(" ", 1)
    assert failures == "[]"
    assert 1 <= int(connections) <= 4
    assert int(pool.ask("SELECT count(*) FROM pg_stat_activity WHERE usename = 'textreport'")) <= 4
    # They were prepared, and by names of the pool's
    script = """
import psycopg, sys
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    for number in range(8):
        connection.execute("SELECT %s::int * 2", (number,))
    print(sum(name.startswith("PGBOUNCER_") for (name,) in connection.execute("SELECT name FROM pg_prepared_statements")))
"""
    assert int(pool.said("db3", "python3", "-c", script, pool.url(), user="nobody")) >= 1


def test_nobody_gets_in_without_the_password(pool: Any, host: Any) -> None:
    """Catches a pool that lets in whoever is on the host, one that the network reaches, and a console for everybody."""
    ask = ["psql", "-XAtq", "-c", "SELECT current_user"]
    assert pool.said("db3", *ask, pool.url(), user="nobody") == "textreport"
    for url in (
        pool.url(password="wrong"),
        pool.url(user="postgres", password="wrong"),
        pool.url(user="pgbouncer", database="pgbouncer", password="wrong"),
        pool.url(database="pgbouncer"),
        pool.url(database="postgres"),
        f"postgresql://textreport@127.0.0.1:{6432}/textreport",
    ):
        code, said = pool.run("db3", *ask, "-w", url, user="nobody")
        assert code != 0, (url.split(":")[1], said)
    assert pool.run("db3", "psql", "-XAtq", "-h", "/run/pgbouncer", "-p", "6432", "-c", "SHOW VERSION", "pgbouncer", user="nobody")[0] != 0
    assert pool.console("SHOW VERSION").startswith("PgBouncer")
    assert {line.split()[3] for line in pool.said("db3", "ss", "-Htln").splitlines() if ":6432" in line} == {"127.0.0.1:6432"}


def test_passwords_stay_where_they_are(pool: Any, host: Any) -> None:
    """Catches passwords that others on the host may read, and those in a log."""
    with host.sudo():
        file = host.file("/etc/pgbouncer/userlist.txt")
        assert (file.user, file.group, file.mode) == ("root", "pgbouncer", 0o640)
        assert pool.password.replace('"', '""') in file.content_string
    secret = pool.password[:32]
    assert secret not in pool.said("db3", "journalctl", "--no-pager", "-o", "cat")
    assert secret not in pool.said("db3", "sh", "-c", "cat /etc/pgbouncer/pgbouncer.ini /etc/systemd/system/pgbouncer.service.d/*")
    log = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "ansible.log"
    assert secret not in log.read_text(errors="replace")


def test_a_login_that_acts_as_another_finds_the_leader_too(pool: Any, eventually: EVENTUALLY) -> None:
    """Catches a standby that is taken for a leader after a rotation: the second login acts as the first, which may not end its connections."""
    standby = next(name for name, one in pool.members().items() if one["Role"] != "Leader")
    query = re.search(r"connect_query='([^']+)'", pool.said("db3", "cat", "/etc/pgbouncer/pgbouncer.ini"))
    assert query is not None
    pool.ask("ALTER ROLE textreport_b LOGIN PASSWORD 'Tr1edOnceAndGone'")
    try:
        known = ["psql", "-XAtq", "-d", "textreport", "-c", "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'textreport_b'"]
        eventually(lambda: pool.said(standby, *known, user="postgres") == "t")
        ask = ["psql", "-XAtq", "postgresql://textreport_b:Tr1edOnceAndGone@127.0.0.1/textreport", "-c"]
        assert pool.said(standby, *ask, "SELECT current_user, pg_is_in_recovery()") == "textreport|t"
        code, said = pool.run(standby, *ask, query[1])
    finally:
        pool.ask("ALTER ROLE textreport_b NOLOGIN PASSWORD NULL")
    assert code != 0
    assert "terminating connection" in said, said


def test_the_unit_is_sandboxed(pool: Any) -> None:
    """Catches a unit that runs as Debian packages it: as the database's own user, who may read all data."""
    said = pool.said("db3", "systemd-analyze", "security", "--no-pager", "pgbouncer.service")
    assert float(said.rsplit("level for ", 1)[1].split()[1]) <= 2.0, said
    assert pool.said("db3", "ps", "-o", "user=", "-C", "pgbouncer") == "pgbouncer"


def test_the_pool_asks_servers_over_tls_that_it_checks(pool: Any, converge: Any, eventually: EVENTUALLY) -> None:
    """Catches passwords that cross the network in the clear, and a server that anybody could stand in for."""
    ask = ["psql", "-XAtq", "-w", "-c", "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl", pool.url()]
    assert pool.said("db3", *ask) == "TLSv1.3"
    pool.said(
        "db3", "sh", "-c", "cd /etc/ssl/groundcrew && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-keyout /dev/null -out stranger.pem -subj '/CN=Groundcrew'"
    )  # fmt: skip
    done = converge(playbook="playbooks/pooler.yml", pgbouncer_tls_ca_file="/etc/ssl/groundcrew/stranger.pem")
    assert done.returncode == 0, done.stdout[-2000:]
    try:
        eventually(lambda: pool.run("db3", *ask)[0] != 0)
        assert "certificate verify failed" in pool.said("db3", "journalctl", "--no-pager", "-u", "pgbouncer", "-n", "50", "-o", "cat")
    finally:
        back = converge(playbook="playbooks/pooler.yml")
    assert back.returncode == 0, back.stdout[-2000:]
    assert eventually(lambda: pool.said("db3", *ask)) == "TLSv1.3"


def test_another_size_ends_no_client(pool: Any, converge: Any, eventually: EVENTUALLY) -> None:
    """Catches a restart, or a client that is cut off in its transaction, for a setting that can change under way."""
    pid = pool.said("db3", "systemctl", "show", "-P", "MainPID", "pgbouncer.service")
    script = """
import psycopg, sys
with psycopg.connect(sys.argv[1]) as connection:
    print(connection.execute("SELECT pg_backend_pid()").fetchone()[0], flush=True)
    sys.stdin.read()
    print(connection.execute("SELECT pg_backend_pid()").fetchone()[0], flush=True)
"""
    command = ["docker", "exec", "-i", str(pool.container("db3").name), "python3", "-u", "-c", script, pool.url()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        before = client.stdout.readline().strip()
        done = converge(playbook="playbooks/pooler.yml", pgbouncer_pool_size=6)
        assert done.returncode == 0, done.stdout[-2000:]
        eventually(lambda: re.search(r"^default_pool_size\|6\|", pool.console("SHOW CONFIG"), re.MULTILINE))
        assert client.communicate(timeout=30)[0].strip() == before != ""
    assert pool.said("db3", "systemctl", "show", "-P", "MainPID", "pgbouncer.service") == pid
    back = converge(playbook="playbooks/pooler.yml")
    assert back.returncode == 0, back.stdout[-2000:]
    assert converge("--check", playbook="playbooks/pooler.yml").settled


def test_a_killed_leader_loses_no_acknowledged_write(pool: Any, eventually: EVENTUALLY) -> None:
    """Catches a pool that stays with a server that is gone or follows another now, and commits that were on one disk alone."""
    leader = pool.leader()
    writer = pool.writer("killed")
    eventually(lambda: writer.acknowledged() > 20)
    pool.said(leader, "pkill", "-KILL", "-u", "postgres", "-x", "postgres")
    before = writer.acknowledged()
    eventually(lambda: writer.acknowledged() > before + 20 and pool.well(), within=120)
    writes = writer.stop()
    print(f"leader killed: {len(writes.numbers)} writes acknowledged, {writes.failed} failed, none for {writes.away:.1f} s")
    assert pool.lost(writer, writes) == set()
    assert writes.away < AWAY_SECONDS


def test_the_pool_follows_a_leader_that_moves(pool: Any, converge: Any, eventually: EVENTUALLY) -> None:
    """Catches a pool whose clients write to a server that follows another now, as connections to it are open to reads."""
    before = pool.leader()
    writer = pool.writer("moved")
    eventually(lambda: writer.acknowledged() > 20)
    candidate = next(name for name, one in pool.members().items() if one["Role"] == "Sync Standby")
    pool.said(before, "patronictl", "-c", "/etc/patroni/config.yml", "switchover", "--leader", before, "--candidate", candidate, "--force")
    eventually(lambda: pool.leader() == candidate)
    reached = writer.acknowledged()
    eventually(lambda: writer.acknowledged() > reached + 20)
    writes = writer.stop()
    print(f"leader moved: {len(writes.numbers)} writes acknowledged, {writes.failed} failed, none for {writes.away:.1f} s")
    assert pool.lost(writer, writes) == set()
    assert writes.away < AWAY_SECONDS


def test_a_leader_whose_host_is_gone_is_left(pool: Any, eventually: EVENTUALLY) -> None:
    """Catches a pool that waits for a host which answers nothing any more."""
    if pool.leader() == "db3":
        pool.said("db3", "patronictl", "-c", "/etc/patroni/config.yml", "switchover", "--leader", "db3", "--force")
        eventually(lambda: pool.leader() != "db3" and pool.well(), within=60)
    leader = pool.leader()
    writer = pool.writer("gone")
    eventually(lambda: writer.acknowledged() > 20)
    before = writer.acknowledged()
    pool.container(leader).kill()
    try:
        eventually(lambda: writer.acknowledged() > before + 20, within=60)
    finally:
        writes = writer.stop()
        pool.container(leader).start()
    print(f"leader's host gone: {len(writes.numbers)} writes acknowledged, {writes.failed} failed, none for {writes.away:.1f} s")
    eventually(pool.well, within=120)
    assert pool.lost(writer, writes) == set()
    # Its lease of 20 s, and what etcd takes
    assert writes.away < AWAY_SECONDS + 5


def test_a_pool_that_is_not_wanted_any_more_goes(pool: Any, converge: Any, host: Any) -> None:
    """Catches a service and passwords that stay behind, and a way there and back that needs a person."""
    off = converge(playbook="playbooks/pooler_end.yml", database_pooler=False)
    assert off.returncode == 0, off.stdout[-2000:]
    assert ":6432" not in pool.said("db3", "ss", "-Htln")
    with host.sudo():
        assert not host.file("/etc/pgbouncer/userlist.txt").exists
    assert pool.run("db3", "systemctl", "is-enabled", "pgbouncer.service")[0] != 0
    assert converge(playbook="playbooks/pooler_end.yml", database_pooler=False).settled
    on = converge(playbook="playbooks/pooler.yml")
    assert on.returncode == 0, on.stdout[-2000:]
    assert pool.said("db3", "psql", "-XAtq", "-c", "SELECT 1", pool.url()) == "1"
