"""What gunicorn promises: who may ask it, and that neither a kill, a restart nor a broken application loses requests."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("as_root")
SOCKET = "/srv/probe/web/live/run/web.sock"
ASK = f"curl --silent --show-error --fail --max-time 20 --unix-socket {SOCKET} http://localhost"
# Asks on new connections, one after another, while the unit is restarted three times
ASK_THROUGH_RESTARTS = """
import json, socket, subprocess, sys
unit, path = sys.argv[1:]
command = f"for i in 1 2 3; do sleep 1; systemctl restart {unit}; done; sleep 1"
restarts = subprocess.Popen(["/bin/sh", "-c", command])
answered, lost = 0, []
while restarts.poll() is None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        try:
            connection.connect(path)
            connection.sendall(b"GET /healthz HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n")
            answer = connection.recv(100)
        except OSError as error:
            answer = repr(error).encode()
    if b" 200 " in answer:
        answered += 1
    else:
        lost.append(answer.decode())
print(json.dumps({"answered": answered, "lost": lost}))
"""
Converge = Callable[..., Any]
Eventually = Callable[..., Any]


def unit(host: Any) -> str:
    return f"probe-web@{host.check_output('readlink /srv/probe/web/live')}.service"


def health(host: Any) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(host.check_output(f"runuser -u www-data -- {ASK}/healthz"))
    return answer


def main_process(host: Any) -> str:
    return str(host.check_output(f"systemctl show --property=MainPID --value {unit(host)}"))


def set_environment(host: Any, line: str) -> None:
    host.check_output("echo %s > /etc/probe/environment", line)


def test_only_the_web_server_may_ask(host: Any) -> None:
    """Catches a socket that any user of the host can speak to, past nginx."""
    assert health(host)["greeting"] == "hello"
    assert host.run(f"runuser -u nobody -- {ASK}/healthz").rc != 0


def test_runs_as_the_application(host: Any, exposure: Any) -> None:
    """Catches workers that run as root, or in a sandbox with holes."""
    assert host.check_output("ps -o user= -p %s", main_process(host)).strip() == "probe"
    assert exposure(unit(host)) <= 2.0


def test_heartbeats_are_in_memory(host: Any) -> None:
    """Catches workers that a stalling disk would have killed."""
    folder = host.check_output("readlink /proc/%s/fd/* | grep -m 1 own-", str(health(host)["process"]))
    assert host.check_output("findmnt --noheadings --output FSTYPE --target %s", folder.split("/wgunicorn")[0]) == "tmpfs"


def test_comes_back_after_a_kill(host: Any, eventually: Eventually) -> None:
    """Catches a unit that stays down, or children that keep the socket, after its master is killed."""
    before = main_process(host)
    host.check_output("kill -KILL %s", before)
    assert eventually(lambda: main_process(host) not in {before, "0"} and health(host))


def test_a_worker_comes_back_after_a_kill(host: Any, eventually: Eventually) -> None:
    """Catches a master that does not replace its workers, or dies with one."""
    master, worker = main_process(host), health(host)["process"]
    host.check_output("kill -KILL %s", str(worker))
    assert eventually(lambda: health(host)["process"] != worker)
    assert main_process(host) == master


def test_restarts_lose_no_request(host: Any) -> None:
    """Catches a socket that closes with the service: new connections must wait until the application is back."""
    result = json.loads(host.check_output("/usr/bin/python3 -c %s %s %s", ASK_THROUGH_RESTARTS, unit(host), SOCKET))
    assert result["answered"] > 20
    assert result["lost"] == [], result


def test_a_stop_waits_for_running_requests(host: Any) -> None:
    """Catches a restart that cuts off requests that are being answered."""
    result = host.run(f"{ASK}/nap?seconds=3 & asked=$!; sleep 1; systemctl restart {unit(host)}; wait $asked")
    assert result.rc == 0, result.stderr


def test_access_log_is_json(host: Any, eventually: Eventually) -> None:
    """Catches an access log that no program can read, or that lost the request's id."""
    host.check_output(f"{ASK}/healthz --header 'X-Request-ID: find-me'")
    line = eventually(lambda: host.run(f"journalctl -u {unit(host)} -o cat --since -1min | grep find-me").stdout)
    assert json.loads(line)["path"] == "/healthz"


def test_a_changed_environment_is_read_by_the_next_run(host: Any, converge: Converge) -> None:
    """Catches a change, or a run killed before its move, that leaves the old process running for good, or two of them."""
    before, slot = main_process(host), unit(host)
    set_environment(host, "GREETING=welcome")
    result = converge()
    assert result.returncode == 0, result.stdout
    assert health(host)["greeting"] == "welcome"
    assert main_process(host) != before
    assert unit(host) != slot
    assert host.check_output("systemctl list-units --plain --no-legend 'probe-web@*'").count(".service") == 1
    assert host.run("systemctl is-enabled %s", slot).stdout.strip() == "disabled"
    assert converge().settled


def test_a_broken_application_replaces_nothing(host: Any, converge: Converge) -> None:
    """Catches a move to an application that does not load, and a failure that does not say why."""
    before = main_process(host)
    set_environment(host, "BREAK=1")
    result = converge()
    set_environment(host, "GREETING=hello")
    assert result.returncode != 0
    assert "RuntimeError: broken on purpose" in result.stdout
    assert main_process(host) == before


@pytest.mark.one_release
@pytest.mark.parametrize("first", [False, True], ids=["a later run", "the first run"])
def test_a_missing_gunicorn_is_named(host: Any, converge: Converge, first: bool) -> None:
    """Catches a failure that leaves the reader guessing when the requirements do not list gunicorn."""
    host.check_output("mv /srv/probe/current/venv/bin/gunicorn /srv/probe/gunicorn")
    set_environment(host, "GREETING=again")
    if first:
        host.check_output("systemctl disable --now %s %s", unit(host), unit(host).replace(".service", ".socket"))
        host.check_output("rm -r /srv/probe/web /etc/systemd/system/probe-web@.service /etc/systemd/system/probe-web@.socket")
        host.check_output("systemctl daemon-reload")
    result = converge()
    host.check_output("mv /srv/probe/gunicorn /srv/probe/current/venv/bin/gunicorn")
    set_environment(host, "GREETING=hello")
    assert "add gunicorn to the application's requirements" in result.stdout, result.stdout[-3000:]


@pytest.mark.one_release
def test_a_wrong_health_path_is_named_at_once(host: Any, converge: Converge) -> None:
    """Catches half a minute of retries, a failure that does not say which variable to change, and one that no further run gets over."""
    result = converge(gunicorn_health_path="/no-such-page")
    assert "Set gunicorn_health_path" in result.stdout, result.stdout[-3000:]
    assert "404" in result.stdout
    assert "RETRYING" not in result.stdout
    assert converge().returncode == 0
