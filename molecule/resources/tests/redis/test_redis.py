"""Redis: who may log in from where, what they may do, and what survives."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("as_root")

SECRETS = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "secrets"
PORTS = {"broker": 6379, "cache": 6380}
DENIED = [
    "FLUSHALL",
    "FLUSHDB",
    "CONFIG GET dir",
    "KEYS fill",
    "CLIENT LIST",
    "SHUTDOWN",
    "ACL LIST",
    "MONITOR",
    "REPLICAOF h 1",
]

Client = Callable[..., str]


@pytest.fixture
def redis(host: Any) -> Client:
    """Return a function that sends a command as an instance's user and returns the answer."""

    def send(instance: str, command: str, user: str = "shop", password: str | None = None) -> str:
        if password is None:
            password = (SECRETS / ("monitor" if user == "monitor" else instance)).read_text().strip()
        login = f"REDISCLI_AUTH={password} redis-cli --no-auth-warning --user {user}" if password else "redis-cli"
        return str(host.run(f"{login} -p {PORTS[instance]} {command} 2>&1").stdout).strip()

    return send


def kill(host: Any, unit: str) -> str:
    """Kill a unit's process, and return the id it had."""
    pid = str(host.check_output(f"systemctl show -P MainPID {unit}"))
    host.check_output(f"systemctl kill --signal=SIGKILL {unit}")
    return pid


@pytest.mark.parametrize("instance", PORTS)
def test_user_with_its_password_reads_back_what_it_wrote(redis: Client, instance: str) -> None:
    """Catches a user that is missing, locked out or without rights to its keys."""
    assert redis(instance, "SET greeting hello EX 60") == "OK"
    assert redis(instance, "GET greeting") == "hello"


@pytest.mark.parametrize("instance", PORTS)
def test_wrong_password_is_refused(redis: Client, instance: str) -> None:
    """Catches a user without a password, and one whose password is not checked."""
    assert "WRONGPASS" in redis(instance, "PING", password="not-the-password")


@pytest.mark.parametrize("instance", PORTS)
def test_missing_password_is_refused(redis: Client, instance: str) -> None:
    """Catches the default user left on, who needs no password."""
    assert "NOAUTH" in redis(instance, "PING", password="")


def test_password_of_one_instance_does_not_open_the_other(redis: Client) -> None:
    """Catches users written to the wrong instance."""
    assert "WRONGPASS" in redis("cache", "PING", password=(SECRETS / "broker").read_text().strip())
    assert "WRONGPASS" in redis("cache", "PING", user="monitor")


@pytest.mark.parametrize("command", DENIED)
@pytest.mark.parametrize("instance", PORTS)
def test_dangerous_command_is_denied(redis: Client, instance: str, command: str) -> None:
    """Catches an application that may administer, empty or block the server."""
    assert "NOPERM" in redis(instance, command)


def test_rules_of_a_user_bound_it(redis: Client) -> None:
    """Catches rules of the data that do not reach the server."""
    assert "redis_version" in redis("broker", "INFO server", user="monitor")
    assert "NOPERM" in redis("broker", "GET greeting", user="monitor")


def test_instance_answers_on_declared_addresses_only(host: Any) -> None:
    """Catches a wildcard address: the cache declares the host's own address, and the broker does not."""
    address = host.check_output("hostname -I").split()[0]
    assert "NOAUTH" in host.run(f"redis-cli -h {address} -p {PORTS['cache']} PING 2>&1").stdout
    assert "Connection refused" in host.run(f"redis-cli -h {address} -p {PORTS['broker']} PING 2>&1").stdout


def test_packaged_instance_has_never_run(host: Any) -> None:
    """Catches the package's own instance, open to every local user, started at the installation."""
    assert host.check_output("systemctl show -P LoadState,ActiveState redis-server.service").split() == ["masked", "inactive"]
    assert "Started" not in host.run("journalctl --no-pager -u redis-server.service").stdout
    assert not host.file("/var/lib/redis/dump.rdb").exists


# Each a megabyte: more than an instance may hold
FILLING = " ".join(f"fill:{number}" for number in range(1, 31))


def fill(host: Any, instance: str) -> str:
    """Write more than the instance may hold, and return the answers."""
    password = (SECRETS / instance).read_text().strip()
    lines = f"for key in {FILLING}; do echo SET $key $(head -c 1000000 /dev/zero | tr '\\0' x); done"
    login = f"REDISCLI_AUTH={password} redis-cli --no-auth-warning --user shop -p {PORTS[instance]}"
    return str(host.run(f"({lines}) | {login} 2>&1").stdout)


def test_users_change_while_the_instance_runs(host: Any, redis: Client, converge: Any, eventually: Any) -> None:
    """Catches a restart, connections of others that are cut, and one of a removed user that is not."""
    secrets = {name: (SECRETS / name).read_text().strip() for name in ("broker", "cache", "monitor")}
    users = [
        {"name": "shop", "instance": "broker", "password": secrets["broker"]},
        {"name": "shop_b", "instance": "broker", "password": secrets["monitor"]},
        {"name": "shop", "instance": "cache", "password": secrets["cache"]},
    ]

    def hold(user: str, name: str) -> None:
        host.run(f"REDISCLI_AUTH={secrets[name]} setsid redis-cli --user {user} -p 6379 SUBSCRIBE {user} >/dev/null 2>&1 &")

        assert eventually(lambda: held(user) == "1", within=10)

    def held(user: str) -> str:
        return redis("broker", f"PUBSUB NUMSUB {user}").split()[-1]

    pid = host.check_output("systemctl show -P MainPID redis-server@broker.service")
    hold("shop", "broker")
    assert converge(redis_users=users).returncode == 0
    hold("shop_b", "monitor")
    assert "WRONGPASS" in redis("broker", "PING", user="monitor")
    assert (held("shop"), held("shop_b")) == ("1", "1")
    assert converge().returncode == 0
    assert "redis_version" in redis("broker", "INFO server", user="monitor")
    assert "WRONGPASS" in redis("broker", "PING", user="shop_b", password=secrets["monitor"])
    assert (held("shop"), held("shop_b")) == ("1", "0")
    host.run("pkill -f SUBSCRIBE.shop$")
    assert host.check_output("systemctl show -P MainPID redis-server@broker.service") == pid


def test_full_broker_refuses_writes_and_loses_nothing(host: Any, redis: Client) -> None:
    """Catches an eviction policy on the broker, which would drop queued tasks silently."""
    redis("broker", "SET task queued")
    try:
        assert "OOM" in fill(host, "broker")
        assert redis("broker", "GET task") == "queued"
        assert redis("broker", "EXISTS fill:1") == "1"
    finally:
        redis("broker", f"DEL {FILLING}")


def test_full_cache_makes_room_for_new_keys(host: Any, redis: Client) -> None:
    """Catches a cache that fails its writers when it is full."""
    assert "OOM" not in fill(host, "cache")
    assert redis("cache", "EXISTS fill:30") == "1"
    # Which keys had to go is Redis' guess at the least used ones, and any of them may have been spared
    assert int(redis("cache", f"EXISTS {FILLING}")) < 30


@pytest.mark.parametrize("instance", PORTS)
def test_killed_instance_comes_back(host: Any, redis: Client, eventually: Any, instance: str) -> None:
    """Catches a unit that is not restarted, however often it dies, and an append-only file that is off or left behind."""
    redis(instance, "SET before kill")
    host.check_output("sleep 1.2")  # everysec: what is older than a second is on disk
    for _ in range(3):
        pid = kill(host, f"redis-server@{instance}.service")
        eventually(lambda pid=pid: host.check_output(f"systemctl show -P MainPID redis-server@{instance}.service") not in {"0", pid})
        eventually(lambda: redis(instance, "PING") == "PONG")
    assert redis(instance, "GET before") == ("kill" if instance == "broker" else "")


def test_cache_keeps_nothing_on_disk(host: Any, redis: Client) -> None:
    """Catches snapshots of cached pages, which may hold personal data, left on the disk, also by a clean stop."""
    redis("cache", "SET page secret")
    host.check_output("systemctl restart redis-server@cache.service")
    assert host.check_output("find /var/lib/redis/cache -type f") == ""
    assert redis("cache", "GET page") == ""


def test_passwords_are_nowhere_on_the_host(host: Any) -> None:
    """Catches a password in clear text in a configuration file or the journal."""
    for secret in ("broker", "cache", "monitor"):
        password = (SECRETS / secret).read_text().strip()
        assert host.run(f"grep -rqF -e '{password}' /etc /var/lib/redis").rc == 1
        assert password not in host.run("journalctl --no-pager -u 'redis*'").stdout
    assert host.run("find /etc/redis -type f -perm /o+r -name '*broker*'").stdout == ""


@pytest.mark.parametrize("instance", PORTS)
def test_unit_is_sandboxed(exposure: Any, instance: str) -> None:
    """Catches a lost sandbox."""
    assert exposure(f"redis-server@{instance}.service") <= 2.0
