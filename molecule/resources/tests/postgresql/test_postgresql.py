"""PostgreSQL: who may log in from where, what they may do, and what survives."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SECRETS = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "secrets"
# Sends a statement and its value apart, which psql cannot before version 16
BIND = """
import ctypes
pq = ctypes.CDLL("libpq.so.5")
pq.PQconnectdb.restype = ctypes.c_void_p
connection = ctypes.c_void_p(pq.PQconnectdb(b""))
values = (ctypes.c_char_p * 1)(b"planted-value")
pq.PQexecParams(connection, b"SELECT pg_sleep(0.3), $1::text AS bound", 1, None, values, None, None, 0)
"""
Query = Callable[..., str]
Converge = Callable[..., Any]


@pytest.fixture(scope="module")
def unit(host: Any) -> str:
    """Return the server's unit."""
    return f"postgresql@{host.check_output('ls /etc/postgresql')}-main.service"


@pytest.fixture
def sql(host: Any) -> Query:
    """Return a function that logs in as a role of the data, sends a statement, and returns the answer or the error.

    It runs without sudo, whose log would hold the password.
    """

    def send(statement: str, role: str = "shop", database: str = "shop", password: str | None = None, at: str = "127.0.0.1") -> str:
        if password is None:
            password = (SECRETS / role).read_text().strip()
        login = f"PGPASSWORD='{password}' psql -w -XAtq -h {at} -U {role} 'dbname={database}'"
        return str(host.run(f'cd / && {login} -c "{statement}" 2>&1').stdout).strip()

    return send


@pytest.fixture
def admin(host: Any) -> Query:
    """Return a function that sends a statement as the system's user postgres."""
    return lambda statement, database="postgres": str(
        host.check_output(f'cd / && sudo -u postgres psql -XAtq -d {database} -c "{statement}"'),
    )


def test_right_password_connects_and_reads_back_a_row(sql: Query) -> None:
    """Catches a role that cannot log in, or owns nothing to write to."""
    sql("CREATE TABLE IF NOT EXISTS item (name text)")
    assert sql("INSERT INTO item VALUES ('lamp') RETURNING name") == "lamp"
    assert sql("SELECT DISTINCT name FROM item") == "lamp"
    assert sql("SELECT DISTINCT name FROM item", at="/run/postgresql") == "lamp"


@pytest.mark.parametrize("at", ["127.0.0.1", "/run/postgresql"])
def test_wrong_and_missing_passwords_are_refused(sql: Query, at: str) -> None:
    """Catches a line in pg_hba.conf that trusts the network or the socket."""
    assert "password authentication failed" in sql("SELECT 1", password="not-the-password", at=at)
    assert "no password supplied" in sql("SELECT 1", password="", at=at)


def test_foreign_address_is_refused(host: Any, sql: Query) -> None:
    """Catches a rule for all addresses: the server listens on the host's address, and refuses the right password from there."""
    at = host.check_output("hostname -I").split()[0]
    for role in ("shop", "blog", "reporting"):
        assert f'no pg_hba.conf entry for host "{at}"' in sql("SELECT 1", role=role, database="shop", at=at)


def test_administrator_cannot_log_in_over_the_network(sql: Query) -> None:
    """Catches an administrator within reach of password guesses."""
    assert "no pg_hba.conf entry" in sql("SELECT 1", role="postgres", database="postgres", password="any")


def test_network_rule_holds_for_its_role_and_database_only(sql: Query) -> None:
    """Catches rules that lose their users or databases on the way into the file."""
    assert "no pg_hba.conf entry" in sql("SELECT 1", role="shop", database="blog")
    assert "no pg_hba.conf entry" in sql("SELECT 1", role="blog", database="blog sslmode=disable")
    assert sql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", role="blog", database="blog") == "t"


def test_application_role_is_no_superuser(sql: Query, admin: Query) -> None:
    """Catches a role that may administer the server."""
    assert (
        sql("SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = user") == "f|f|f|f|f"
    )
    assert admin("SELECT count(*) FROM pg_roles WHERE rolsuper") == "1"


def test_application_role_owns_its_schema(admin: Query) -> None:
    """Catches migrations that fail for want of rights."""
    assert admin("SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'public'", "shop") == "shop"


@pytest.mark.parametrize("database", ["blog", "postgres", "template1"])
def test_role_cannot_connect_to_another_database(sql: Query, database: str) -> None:
    """Catches databases left open to every role, as they are created."""
    assert f'permission denied for database "{database}"' in sql("SELECT 1", database=database, at="/run/postgresql")


def test_granted_role_may_read_and_nothing_else(sql: Query, admin: Query) -> None:
    """Catches grants of the data that give too little or too much."""

    def report(statement: str) -> str:
        return sql(statement, role="reporting", at="/run/postgresql")

    sql("CREATE TABLE IF NOT EXISTS later (n int)")
    assert report("SELECT count(*) FROM later") == "0"
    assert "permission denied for table" in report("INSERT INTO later VALUES (1)")
    assert "permission denied for schema" in report("CREATE TABLE mine (n int)")
    assert admin("SELECT rolconnlimit, pg_has_role(oid, 'pg_monitor', 'member') FROM pg_roles WHERE rolname = 'reporting'") == "3|t"


def test_a_second_login_takes_over_from_the_first(host: Any, sql: Query, admin: Query, converge: Converge, eventually: Any) -> None:
    """Catches tables that the other login makes for itself, and a closed login whose session goes on."""
    assert sql("CREATE TABLE IF NOT EXISTS made_by_b (n int); INSERT INTO made_by_b VALUES (1) RETURNING n", role="shop_b") == "1"
    assert admin("SELECT tableowner FROM pg_tables WHERE tablename = 'made_by_b'", "shop") == "shop"
    assert sql("SELECT count(*) > 0 FROM made_by_b") == "t"
    password = (SECRETS / "shop_b").read_text().strip()
    # After a semicolon: of a list, the shell would stay in the background with the output of this login, which would wait for it
    host.run(f"cd /; PGPASSWORD='{password}' setsid psql -w -h 127.0.0.1 -U shop_b shop -c 'SELECT pg_sleep(900)' >/dev/null 2>&1 &")
    held = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'shop_b'"
    assert eventually(lambda: admin(held) == "1", within=10)
    roles = [{"name": name, "password": (SECRETS / name).read_text().strip()} for name in ("shop", "blog")]
    done = converge(postgresql_roles=[*roles, {"name": "shop_b", "acts_as": "shop", "login": False}], postgresql_grants=[])
    assert done.returncode == 0, done.stdout[-4000:]
    assert admin(held) == "0"
    assert "password authentication failed" in sql("SELECT 1", role="shop_b")
    assert converge().returncode == 0
    assert sql("SELECT session_user, current_user", role="shop_b") == "shop_b|shop"


def test_passwords_are_stored_by_scram_only(admin: Query) -> None:
    """Catches MD5, which is broken."""
    assert admin("SELECT count(*) FROM pg_authid WHERE rolpassword LIKE 'SCRAM-SHA-256$%'") == "4"
    assert admin("SELECT count(*) FROM pg_authid WHERE rolpassword NOT LIKE 'SCRAM-SHA-256$%'") == "0"
    assert admin("SELECT string_agg(DISTINCT auth_method, ',') FROM pg_hba_file_rules") == "peer,scram-sha-256"


def test_data_has_checksums_and_is_unicode(admin: Query) -> None:
    """Catches a cluster created with the package's defaults, which depend on the locale of whoever runs apt."""
    assert admin("SHOW data_checksums") == "on"
    assert admin("SHOW server_encoding") == "UTF8"


def test_memory_settings_are_derived_and_in_force(admin: Query) -> None:
    """Catches a configuration that waits for a restart, or was never read."""
    assert admin("SHOW shared_buffers") == "128MB"
    assert admin("SELECT count(*) FROM pg_settings WHERE pending_restart") == "0"


def test_slow_statement_is_logged_without_its_values(host: Any, unit: str) -> None:
    """Catches a slow statement that nobody hears of, and personal data, which comes as bound values, in the log."""
    password = (SECRETS / "shop").read_text().strip()
    login = f"cd / && PGPASSWORD='{password}' PGHOST=127.0.0.1 PGUSER=shop PGDATABASE=shop"
    # Without sudo, whose log would hold the password
    host.run_expect([0], f"{login} /usr/bin/python3 -c '{BIND}'")
    host.check_output("sudo journalctl --sync")
    logged = host.check_output(f"sudo journalctl --no-pager -o cat -u {unit}")
    assert "AS bound" in logged
    assert "planted-value" not in logged


def test_statements_are_counted(sql: Query, admin: Query) -> None:
    """Catches pg_stat_statements not loaded, or not created."""
    sql("SELECT 4711 AS counted")
    assert admin("SELECT calls > 0 FROM pg_stat_statements WHERE query LIKE '%AS counted'") == "t"


def test_declared_extension_is_there(sql: Query) -> None:
    """Catches extensions of the data that are not created."""
    assert sql("SELECT similarity('word', 'word')") == "1"


def test_passwords_are_in_no_log_and_no_statistics(host: Any, admin: Query) -> None:
    """Catches the statement that sets a password in the server's log or its statistics."""
    journal = host.check_output("sudo journalctl --no-pager")
    statements = admin("SELECT query FROM pg_stat_statements")
    leaked = [name for name in ("shop", "blog", "reporting") if (SECRETS / name).read_text().strip() in journal + statements]
    assert not leaked
    assert "ENCRYPTED PASSWORD" not in statements


def test_killed_server_comes_back_with_its_rows(host: Any, sql: Query, eventually: Any, unit: str) -> None:
    """Catches a server that stays down after a crash, as Debian's unit leaves it."""
    sql("CREATE TABLE IF NOT EXISTS survivor (n int); INSERT INTO survivor VALUES (42)")
    for _ in range(2):
        pid = host.check_output(f"systemctl show -P MainPID {unit}")
        host.check_output(f"sudo kill -KILL {pid}")
        eventually(lambda pid=pid: host.check_output(f"systemctl show -P MainPID {unit}") not in {"0", pid}, within=60)
        assert eventually(lambda: sql("SELECT max(n) FROM survivor") == "42", within=60)


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"postgresql_hba": [{"address": "fd00:::1"}]}, "pg_hba.conf, line 6: "),
        ({"postgresql_extra_settings": {"shared_preload_libraries": "pg_stat_statements,nowhere"}}, 'could not access file "nowhere"'),
    ],
)
def test_a_configuration_that_the_server_refuses_is_taken_back(
    host: Any, converge: Converge, sql: Query, unit: str, eventually: Any, variables: dict[str, Any], reason: str
) -> None:
    """Catches files that the server does not start with: at once, or after the next crash or reboot."""
    result = converge(**variables)
    assert result.returncode != 0
    assert reason in result.stdout
    assert eventually(lambda: sql("SELECT 1") == "1")
    host.check_output(f"sudo systemctl restart {unit}")
    assert eventually(lambda: sql("SELECT 1") == "1")
    assert converge().settled
    assert host.check_output("sudo find /etc/postgresql -name '*~'") == ""


def test_clean_stop_stays_stopped_and_starts_again(host: Any, sql: Query, eventually: Any, unit: str) -> None:
    """Catches a restart policy that undoes an operator's stop."""
    version = unit.partition("@")[2].partition("-")[0]
    host.check_output(f"sudo pg_ctlcluster {version} main stop")
    assert host.check_output(f"systemctl show -P ActiveState {unit}") == "inactive"
    host.check_output("sudo systemctl start postgresql.service")
    assert eventually(lambda: sql("SELECT 1") == "1")


def test_unit_is_sandboxed(host: Any, exposure: Any, unit: str) -> None:
    """Catches a lost sandbox, and a server that still runs without it."""
    assert exposure(unit) <= 2.0
    pid = host.check_output(f"systemctl show -P MainPID {unit}")
    status = host.check_output(f"sudo cat /proc/{pid}/status")
    assert "NoNewPrivs:\t1" in status
    assert "CapBnd:\t0000000000000000" in status
