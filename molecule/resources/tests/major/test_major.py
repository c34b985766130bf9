"""From PostgreSQL 15 to 17 on a host that has gone from Debian 12 to 13. In order: each test leaves the host as the next one needs it.

Something writes all the time, and notes what was acknowledged.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest

UPGRADE = "playbooks/upgrade_postgresql.yml"
OLD, NEW = "postgresql@15-main.service", "postgresql@17-main.service"
Ask = Callable[..., str]

pytestmark = pytest.mark.usefixtures("as_root")


def said(run: Any) -> str:
    """Return what a run has printed, without its line breaks."""
    print(run.stdout[-6000:], run.stderr[-2000:])
    return " ".join((run.stdout + run.stderr).split())


@pytest.fixture
def ask(host: Any) -> Ask:
    """Return a function that asks the server that listens, as the system's user postgres."""
    return lambda statement, database="shop": str(
        host.check_output("cd / && runuser -u postgres -- psql -XAtq -d %s -c %s", database, statement),
    ).strip()


@pytest.fixture
def data(ask: Ask) -> Callable[[], str]:
    """Return a function that sums up what nobody writes to, every byte of it."""
    return lambda: ask(
        "SELECT md5(string_agg(customer::text, '' ORDER BY id)), (SELECT count(*) FROM bill_0), (SELECT count(*) FROM bill_1), "
        "(SELECT count(*) FROM paid), (SELECT last_value FROM customer_id_seq), (SELECT last_value FROM bill_id_seq), double(21), "
        "(SELECT md5(rolpassword) FROM pg_authid WHERE rolname = 'shop'), (SELECT rolcanlogin FROM pg_roles WHERE rolname = 'shop_b') FROM customer"
    )


@pytest.fixture
def lost(host: Any, ask: Ask) -> Callable[[], set[str]]:
    """Return a function that tells which acknowledged writes are not there."""
    return lambda: set(host.check_output("cat /var/lib/shop/acknowledged").split()) - set(ask("SELECT n FROM written").split())


def kept(host: Any) -> str:
    """Return what an upgrade that does not take place must leave as it is."""
    return str(
        host.check_output(
            f"systemctl show -p MainPID -p ActiveEnterTimestamp {OLD}; systemctl is-enabled {OLD}; pg_lsclusters -h; ls -A /var/lib/postgresql; "
            "find /etc/postgresql /etc/postgresql-common -type f -exec sha256sum {} + | sort; ls /var/lib/groundcrew/maintenance"
        )
    )


def longest_gap(host: Any) -> int:
    """Return the most seconds between two writes that came through."""
    times = [int(one) for one in host.check_output("cat /var/lib/shop/times").split()]
    return max(after - before for before, after in itertools.pairwise(times))


def test_a_run_begins_no_empty_server_beside_the_data(host: Any, converge: Any) -> None:
    """Catches a site.yml that installs the new version, and has the application find an empty database."""
    host.run_expect([0], "mkdir -p /var/lib/groundcrew/maintenance")
    before = kept(host)
    for playbook, options in (
        ("playbooks/database.yml", []),
        ("playbooks/database.yml", ["--check"]),
        ("playbooks/preflight_members.yml", []),
    ):
        run = converge(*options, playbook=playbook)
        assert run.returncode != 0
        assert "has the data of PostgreSQL 15 in /var/lib/postgresql/15/main, and its Debian has 17, which would begin empty" in said(run)
    assert kept(host) == before
    assert not host.package("postgresql-17").is_installed


def test_a_rehearsal_without_room_is_refused(host: Any, converge: Any) -> None:
    """Catches a copy that fills the disk of the running server."""
    before, huge = kept(host), "/var/lib/postgresql/15/main/huge"
    host.run_expect([0], f"truncate -s 9T {huge}")
    run = converge(playbook=UPGRADE)
    host.run_expect([0], f"rm {huge}")
    assert run.returncode != 0
    found = re.search(r"the data has (\d+) MB, a rehearsal needs (\d+) MB, and (\d+) MB are free. Nothing was changed", said(run))
    assert found
    size, needed, free = map(int, found.groups())
    assert needed > size > 9 * 1024**2 > free
    assert kept(host) == before


def test_a_rehearsal_counts_everything_and_leaves_the_server_as_it_is(host: Any, ask: Ask, converge: Any, lost: Any) -> None:
    """Catches a rehearsal that stops or changes the server, leaves something behind, or passes over what needs work."""
    before, rows = kept(host), int(ask("SELECT count(*) FROM written"))
    host.run_expect([0], "date +%s > /var/lib/shop/times")
    run = converge(playbook=UPGRADE)
    assert run.returncode == 0, said(run)
    assert kept(host) == before
    text = said(run)
    counted = re.search(r"5 tables with (\d+) rows, 6 indexes, 3 sequences, 3 roles", text)
    assert counted
    assert rows <= int(counted[1]) - 8000 <= int(ask("SELECT count(*) FROM written"))
    assert re.search(r"have changed: shop: public.customer_name \(de-x-icu [\d.]+, now [\d.]+\)", text)
    assert "pg_stat_statements (1.10, now 1.11)" in text
    assert "may: shop to shop'" in text or "may: shop to shop -" in text
    assert (longest_gap(host) <= 10, lost()) == (True, set())


def test_a_rehearsal_finds_a_login_that_fails(host: Any, converge: Any) -> None:
    """Catches an upgrade after which the application could not log in, found out by visitors; and a password in the log."""
    before = kept(host)
    run = converge(playbook=UPGRADE, postgresql_roles=[{"name": "shop", "password": "not-the-one-that-it-has"}])
    assert run.returncode != 0
    assert 'shop to shop: psql: error: connection to server on socket "/var/lib/postgresql/upgrade/' in said(run)
    assert "password authentication failed" in said(run)
    assert "not-the-one" not in said(run)
    assert kept(host) == before


@pytest.mark.parametrize(
    ("obstacle", "variables", "message"),
    [
        # Version 17 has no such column, which pg_upgrade finds out in its middle
        ("CREATE VIEW gone AS SELECT buffers_backend FROM pg_stat_bgwriter", {}, "column pg_stat_bgwriter.buffers_backend does not exist"),
        # An address that is not the host's: the data is in its place, and the server does not start
        ("SELECT", {"postgresql_listen_addresses": ["203.0.113.7"]}, "could not create any TCP/IP sockets"),
    ],
)
def test_a_failure_in_the_middle_leaves_the_old_one_serving(
    host: Any, ask: Ask, converge: Any, data: Any, lost: Any, eventually: Any, obstacle: str, variables: dict[str, Any], message: str
) -> None:
    """Catches an upgrade that fails with the site closed, and leaves no server, an empty one, or no application."""
    before, sums = kept(host).splitlines()[2:], data()
    ask(obstacle)
    run = converge(playbook=UPGRADE, rehearsal=False, **variables)
    written = int(ask("SELECT max(n) FROM written"))
    assert run.returncode != 0
    assert message in said(run)
    assert "The upgrade failed, and PostgreSQL 15 serves as before" in said(run)
    assert not re.search("SCRAM-SHA-256|md5[0-9a-f]{32}", run.stdout)
    assert ask("SHOW server_version_num").startswith("15")
    assert kept(host).splitlines()[2:] == before
    assert eventually(lambda: int(ask("SELECT max(n) FROM written")) > written)
    assert (data(), lost()) == (sums, set())
    assert host.service("shop-worker-default@blue").is_running
    ask("DROP VIEW IF EXISTS gone")


def test_the_upgrade_brings_everything_over(host: Any, ask: Ask, converge: Any, data: Any, lost: Any, eventually: Any) -> None:
    """Catches rows, sequences, roles or acknowledged writes that are left behind, and two servers that start at boot."""
    sums, text_index = data(), "SELECT relfilenode FROM pg_class WHERE relname = 'customer_name'"
    made = ask(text_index)
    host.run_expect([0], "cd /var/lib/shop && rm -f closed ended && date +%s > times")
    run = converge(playbook=UPGRADE, rehearsal=False)
    assert run.returncode == 0, said(run)
    written = int(ask("SELECT max(n) FROM written"))
    assert ask("SHOW server_version_num").startswith("17")
    assert (data(), lost()) == (sums, set())
    assert eventually(lambda: int(ask("SELECT max(n) FROM written")) > written)
    print(f"no write came through for {longest_gap(host)} s")
    # The site was closed before the application was stopped, whose tasks ended; both are back
    assert host.check_output("cat /var/lib/shop/closed /var/lib/shop/ended").split() == ["shop", "ended"]
    assert host.check_output("ls /var/lib/groundcrew/maintenance") == ""
    assert host.service("shop-worker-default@blue").is_running
    # As the role sets it up: checksums, extensions, an index in the order of today, and statistics
    assert ask("SHOW data_checksums") == "on"
    assert ask("SELECT extversion FROM pg_extension WHERE extname = 'pg_stat_statements'", "postgres") == "1.11"
    assert ask(text_index) != made
    assert ask("SELECT count(*) FROM pg_stats WHERE tablename = 'customer' AND attname = 'name'") == "1"
    assert ask("SELECT datname FROM pg_database WHERE datcollversion <> pg_database_collation_actual_version(oid)") == ""
    for options in ([], ["--check"]):
        assert converge(*options, playbook="playbooks/database.yml").settled
    # What was is kept, and stays down when the host starts
    assert host.check_output("cat /var/lib/postgresql/15/main/PG_VERSION") == "15"
    host.run_expect(
        [0],
        "systemctl stop postgresql.service 'postgresql@*' && systemctl daemon-reload && systemctl start multi-user.target postgresql.service",
    )
    assert eventually(lambda: host.service(NEW).is_running)
    assert not host.service(OLD).is_running
    assert "Nothing is to be upgraded" in said(converge(playbook=UPGRADE))


def test_the_way_back_is_the_one_that_is_documented(host: Any, ask: Ask, eventually: Any) -> None:
    """Catches a copy that was kept and does not start, and one that starts beside the other after a restart."""
    host.run_expect([0], f"systemctl disable --now {NEW}")
    host.run_expect([0], "sed -i 's/^auto$/manual/' /etc/postgresql/17/main/start.conf")
    host.run_expect([0], "sed -i 's/^manual$/auto/' /etc/postgresql/15/main/start.conf")
    host.run_expect([0], f"systemctl enable --now {OLD}")
    assert ask("SHOW server_version_num").startswith("15")
    host.run_expect(
        [0], "systemctl stop postgresql.service 'postgresql@*' && systemctl daemon-reload && systemctl start postgresql.service"
    )
    assert eventually(lambda: host.service(OLD).is_running)
    assert not host.service(NEW).is_running
