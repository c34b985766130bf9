"""What a rotation of secrets promises: nobody notices it, the old ones are refused afterwards, and none of them is to be seen."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.console import say
from tools.fleet import Fleet, Step, failed, recap
from tools.load import Answer, Load, summary

# The services and one of the servers; debian13 has another, and workers
testinfra_hosts = ["ansible://debian12"]

Eventually = Callable[..., Any]
ROTATE = "playbooks/rotate_secrets.yml"
PORTS = {"broker": 6379, "cache": 6380}
TLS = "--tls --cacert /etc/ssl/groundcrew/ca.pem"
LOGINS = ["textreport", "textreport_b"]
# Ends by itself, so that a run that is killed leaves nothing
SAMPLE = "for i in $(seq 6000); do [ -e /tmp/sampled ] || exit; cat /proc/[0-9]*/cmdline; echo; sleep 0.2; done >> /tmp/sampled 2>/dev/null"


def database(host: Any, login: str, password: str, statement: str = "SELECT 1") -> str:
    # Without sudo, whose log would hold the password
    said = (
        f"cd / && PGPASSWORD={shlex.quote(password)} psql -w -XAtq -h 127.0.0.1 -U {login} -d textreport -c {shlex.quote(statement)} 2>&1"
    )
    return str(host.run(said).stdout).strip()


def redis(host: Any, instance: str, login: str, password: str) -> str:
    said = f"REDISCLI_AUTH={shlex.quote(password)} redis-cli {TLS} --no-auth-warning --user {login} -p {PORTS[instance]} PING 2>&1"
    return str(host.run(said).stdout).strip()


def rows(host: Any, statement: str) -> str:
    return str(host.check_output(f"cd / && sudo -u postgres psql -XAtq -d textreport -c {shlex.quote(statement)}"))


def held(host: Any) -> str:
    """The sessions that somebody holds with the secrets from before."""
    sessions = rows(host, "SELECT pid FROM pg_stat_activity WHERE application_name = 'planted'")
    return f"{sessions}\n".lstrip() + str(host.run("sudo ss -Htnp state established | grep redis-cli").stdout)


@contextlib.contextmanager
def watched(seen: set[bytes]) -> Iterator[None]:
    """Collect the command lines on the controller."""
    stopping = threading.Event()

    def sample() -> None:
        while not stopping.wait(0.1):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes())
                except OSError:
                    continue

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


@pytest.fixture(scope="module")
def here() -> set[bytes]:
    """The command lines on the controller while secrets are rotated; those of the tests, which use secrets themselves, are not among them."""
    return set()


@pytest.fixture(scope="module")
def history(host: Any, fleet: Fleet, load: Load, vault: Any, visitor: Any, here: set[bytes], eventually: Eventually) -> list[Answer]:
    """Two rotations, the first of which was killed, and the end of the sessions; the answers of the site meanwhile."""
    first = vault.look()
    vault.path.with_name("vault-before.yml").write_bytes(vault.path.read_bytes())
    # Somebody has got hold of the secrets, and of sessions
    password = shlex.quote(first["vault_postgresql_app_password"])
    host.run(
        f"PGPASSWORD={password} PGAPPNAME=planted setsid psql -w -h 127.0.0.1 -U textreport -d textreport -c 'SELECT pg_sleep(3000)'"
        " >/dev/null 2>&1 &"
    )
    for instance, port in PORTS.items():
        password = shlex.quote(first[f"vault_redis_{instance}_password"])
        host.run(f"REDISCLI_AUTH={password} setsid redis-cli {TLS} --user textreport -p {port} SUBSCRIBE planted >/dev/null 2>&1 &")
    assert eventually(lambda: len(held(host).splitlines()) == 1 + len(PORTS))
    # As root, who alone sees everybody's processes
    host.check_output("sudo touch /tmp/sampled")
    host.run(f"sudo setsid sh -c {shlex.quote(SAMPLE)} >/dev/null 2>&1 &")
    load.start()
    visitor.start()
    with pytest.MonkeyPatch.context() as patch, watched(here):
        patch.setenv("ANSIBLE_VERBOSITY", "3")
        patch.setenv("ANSIBLE_DIFF_ALWAYS", "true")
        assert fleet.kill("gunicorn : service | Watch it while", 1, ROTATE)
        vault.look()
        fleet.run("first", ROTATE)
        vault.look()
        fleet.steps[-1].live = held(host)
        visitor.stop()
        # A new session: the one from before this rotation ends with the next
        visitor.start()
        fleet.run("second", ROTATE)
        vault.look()
        visitor.stop()
        visitor.open()
        answers = load.stop()
        visitor.send()
        visitor.open()
        fleet.run("end", "playbooks/end_sessions.yml")
        vault.look()
    fleet.run("site", "site.yml")
    host.check_output("sudo cp /tmp/sampled /tmp/sample && sudo rm /tmp/sampled")
    return answers


def step(fleet: Fleet, name: str) -> Step:
    return next(found for found in fleet.steps if found.name == name)


@pytest.mark.parametrize("name", ["first", "second", "end"])
def test_it_comes_through(fleet: Fleet, history: list[Answer], name: str) -> None:
    found = step(fleet, name)
    say(f"{name}: {found.seconds:.0f} s")
    assert found.code == 0, found.output[-4000:]


def test_no_request_fails(history: list[Answer], visitor: Any) -> None:
    """Catches a moment at which neither the old values are good nor the new, and a page whose form is refused."""
    say(json.dumps(summary(history)))
    say(f"{len(visitor.statuses)} forms of a visitor")
    assert [(answer.request.path, answer.status, answer.error) for answer in failed(history)] == []
    assert set(visitor.statuses) == {303}
    assert visitor.sessions == 2, "a session from before counts no longer"
    assert len(history) > 500


def test_no_task_is_lost(host: Any, history: list[Answer], visitor: Any, eventually: Eventually) -> None:
    """Catches a worker whose login is closed, or whose connections are cut, while it works."""
    taken = sum(answer.good and answer.request.method == "POST" for answer in history) + visitor.statuses.count(303)
    assert eventually(lambda: rows(host, "SELECT count(*) FROM reports WHERE state IN ('queued', 'running')") == "0", within=120)
    assert rows(host, "SELECT count(*) FROM reports WHERE state = 'failed'") == "0"
    assert int(rows(host, "SELECT count(*) FROM reports WHERE state = 'done'")) >= taken


def test_the_next_run_goes_on_with_the_same_values(vault: Any, history: list[Answer]) -> None:
    """Catches a killed run whose values are lost, and a rotation that makes none."""
    start, killed, first, second, end = vault.seen
    names = [name for name in start if name.endswith("_password")]
    assert [name for name in names if killed[name] == start[name]] == []
    assert [name for name in names if first[name] != killed[name]] == []
    assert first["vault_app_secret_key"] == killed["vault_app_secret_key_fallbacks"][0]
    assert first["vault_app_secret_key_fallbacks"] == [start["vault_app_secret_key"]]
    assert [name for name in names if second[name] == first[name]] == []
    assert [one["vault_rotation"] for one in (first, second, end)] == [{}, {}, {}]
    assert end["vault_app_secret_key_fallbacks"] == []
    assert end["vault_of_the_operators_own"] == "kept"


def test_sessions_with_old_secrets_have_ended(fleet: Fleet, history: list[Answer]) -> None:
    """Catches a login that is closed, and yet serves whoever was in."""
    assert step(fleet, "first").live == ""


def test_old_secrets_are_refused(host: Any, vault: Any, history: list[Answer]) -> None:
    start, _, first, second, _ = vault.seen
    for old in (start, first):
        for login in LOGINS:
            assert "password authentication failed" in database(host, login, old["vault_postgresql_app_password"])
            for instance in PORTS:
                assert "WRONGPASS" in redis(host, instance, login, old[f"vault_redis_{instance}_password"])
    assert second["vault_login"] == 0
    current = second["vault_postgresql_app_password"]
    assert database(host, LOGINS[0], current, "SELECT session_user, current_user") == "textreport|textreport"
    assert "password authentication failed" in database(host, LOGINS[1], current)
    for instance in PORTS:
        assert redis(host, instance, LOGINS[0], second[f"vault_redis_{instance}_password"]) == "PONG"


def test_everything_belongs_to_the_owner(host: Any, history: list[Answer]) -> None:
    """Catches tables that the other login has made for itself."""
    assert rows(host, "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'") == "textreport"


# After the test of the visitor's statuses
def test_an_old_session_counts_no_longer_at_the_end(visitor: Any, history: list[Answer]) -> None:
    """The form that was opened in it is refused, and a new one is taken."""
    assert visitor.ask("POST", "text=words&csrf_token=" + visitor.token)[0] == 400
    visitor.open()
    assert visitor.send() == 303


def test_a_vault_from_before_is_refused(host: Any, fleet: Fleet, vault: Any, history: list[Answer]) -> None:
    """Catches a clone that was not updated and gives the hosts the old secrets back."""
    for playbook in ("playbooks/database.yml", "playbooks/cache.yml"):
        fleet.run("stale", playbook, vault_file=str(vault.path.with_name("vault-before.yml")))
        assert fleet.steps[-1].code != 0
        assert "secrets of a later rotation" in fleet.steps[-1].output
    current = vault.seen[-1]["vault_postgresql_app_password"]
    assert database(host, LOGINS[0], current, "SELECT session_user") == "textreport"


def test_lists_that_do_not_follow_are_refused(fleet: Fleet, vault: Any, history: list[Answer]) -> None:
    """Catches an environment with users of its own, whose application would move to a login that nobody has made."""
    own = [{"name": LOGINS[0], "instance": instance, "password": "of-the-operators-own"} for instance in PORTS]
    before = vault.path.read_bytes()
    found = fleet.run("own", ROTATE, redis_users=own)
    assert found.code != 0
    assert "do not have both logins of the application" in " ".join(found.output.split())
    assert vault.path.read_bytes() == before


def test_nothing_is_left_to_change(fleet: Fleet, history: list[Answer]) -> None:
    """Catches a rotation that leaves the hosts otherwise than the vault says."""
    found = step(fleet, "site")
    assert (found.code, set(recap(found.output).values())) == (0, {0}), found.output[-4000:]


def test_secrets_are_in_no_output_and_no_command_line(
    host: Any, fleet: Fleet, vault: Any, history: list[Answer], generated: Path, here: set[bytes]
) -> None:
    """Catches a secret, old or new, in what Ansible says at its most verbose, in its log, or in the arguments of a program."""
    secrets = vault.secrets()
    assert len(secrets) == 12
    places = {one.name: one.output for one in fleet.steps} | {"log": (generated / "ansible.log").read_text()}
    assert all("<" in places[name] and "EXEC" in places[name] for name in ("first", "second")), "no verbose output"
    places["controller"] = b"\n".join(here).decode(errors="replace")
    places["host"] = host.check_output("tr '\\0' ' ' < /tmp/sample | sort -u")
    assert "redis-server" in places["host"]
    assert "rotate_secrets.yml" in places["controller"]
    assert [place for place, text in places.items() for secret in secrets if secret in text] == []


@pytest.mark.usefixtures("as_root")
def test_secrets_are_in_no_file_that_others_read(host: Any, vault: Any, history: list[Answer], generated: Path) -> None:
    """Catches a secret in the journal, in a log, or in a file beside those that only root reads."""
    # From a file, as sudo's log has the arguments of what it runs
    patterns = "\n".join(sorted(vault.secrets()))
    name = host.ansible.get_variables()["inventory_hostname"]
    subprocess.run(
        ["docker", "exec", "-i", f"groundcrew-secrets-{name}", "sh", "-c", "umask 077; cat > /root/patterns"],
        input=patterns, text=True, check=True,
    )  # fmt: skip
    assert host.run("journalctl --no-pager | grep -cFf /root/patterns").stdout.strip() == "0"
    found = host.run("grep -rlIFf /root/patterns /etc /home /opt /run /srv /tmp /usr/local /var/backups /var/log /var/tmp").stdout.split()
    assert "/etc/textreport/environment" in found
    assert [path for path in found if not path.startswith("/etc/textreport/")] == []
    assert {host.check_output(f"stat -c '%a %U' {path}") for path in found} == {"600 root"}
