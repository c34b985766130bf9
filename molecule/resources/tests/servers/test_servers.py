"""What docs/servers.md promises of every server and application: the same slots, gate, sandbox and journal, and no request lost between them.

The applications move from server to server under load; what is seen of each is kept for the tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import testinfra
from testinfra.utils.ansible_runner import AnsibleRunner

from tools.console import say
from tools.load import Answer, Load, Request, summary
from tools.servers import combinations, load

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
MIX = [Request("GET", "/"), Request("GET", "/healthz"), Request("GET", "/nap"), Request("GET", "/")]
KINDS = {"flask": "wsgi", "django": "wsgi", "channels": "asgi", "fastapi": "asgi"}
# A program that takes the socket which systemd has opened; Tornado's makes one
COMMAND = {"gunicorn_server": "command", "gunicorn_command": ["uvicorn", "--fd", "{fd}", "--workers", "{workers}", "board:app"]}
# The servers of each application, in the order in which it moves: all that the table in docs/servers.md says yes to
ORDER: dict[str, list[tuple[str, dict[str, Any]]]] = {
    app: [(choice.title, dict(choice.variables)) for choice in combinations(kind)] for app, kind in KINDS.items()
}
ORDER["fastapi"].append(("command", COMMAND))
SERVERS, CLASSES = load()["servers"], load()["classes"]
COMBINATIONS = [("tornado", "command"), *((app, title) for app, servers in ORDER.items() for title, _ in servers)]


@dataclass
class Machine:
    """One of the two machines behind the names of the applications."""

    host: Any
    address: str


@dataclass
class Fleet:
    """The applications on their machines, and what was seen of each under each server."""

    machines: dict[str, Machine]
    inventory: Path
    seen: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    # How a request ended in the middle of which the server was told to stop
    stopped: dict[tuple[str, str], int] = field(default_factory=dict)
    answers: dict[str, list[Answer]] = field(default_factory=dict)

    def load(self, app: str) -> Load:
        return Load(f"https://{app}.test:443", MIX, 4, EPHEMERAL / "ca/ca.pem", self.machines[app].address, threads=12)

    def get(self, app: str, path: str) -> tuple[int, bytes]:
        client = self.load(app).client()
        client.request("GET", path)
        answer = client.getresponse()
        return answer.status, answer.read()

    def ask(self, what: str, *apps: str) -> dict[str, Any]:
        program = (Path(__file__).parent / "look.py").read_text(encoding="utf-8")
        found: dict[str, Any] = {}
        for address in {self.machines[app].address for app in apps}:
            there = [app for app in apps if self.machines[app].address == address]
            host = self.machines[there[0]].host
            with host.sudo():
                found |= json.loads(host.check_output(f"/usr/bin/python3 -c %s {what} {' '.join(there)}", program))
        return found

    def look(self, *apps: str) -> dict[str, Any]:
        found = self.ask("look", *apps)
        for app, seen in found.items():
            seen["page"] = json.loads(self.get(app, "/")[1])
            seen["static"] = self.get(app, seen["page"]["static"].removeprefix(f"https://{app}.test"))
        return found

    def run(self, variables: dict[str, dict[str, Any]], **stronger: Any) -> subprocess.CompletedProcess[str]:
        """Run the playbook of the application server on some of them, each with variables of its own; host_vars are stronger than those."""
        moves = EPHEMERAL / "moves.json"
        moves.write_text(json.dumps({"all": {"hosts": variables}}))
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        command = [program, f"--inventory={self.inventory}", f"--inventory={moves}", f"--limit={','.join(variables)}"]
        return subprocess.run(
            [*command, f"--extra-vars={json.dumps({'release_serial': '100%', **stronger})}", "playbooks/app.yml"],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )


@pytest.fixture(scope="session")
def fleet(request: pytest.FixtureRequest) -> Fleet:
    inventory = Path(request.config.option.ansible_inventory)
    runner = AnsibleRunner(str(inventory))
    machines = {
        name: Machine(
            testinfra.get_host(f"ansible://{name}", ansible_inventory=str(inventory)), str(runner.get_variables(name)["ansible_host"])
        )
        for name in runner.get_hosts("web")
    }
    where = {app: machines[str(runner.get_variables(app)["machine"])] for app in runner.get_hosts("app")}
    return Fleet(where, Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent)


@pytest.fixture(scope="session")
def moved(fleet: Fleet) -> Fleet:
    """Each application has been under each of its servers, and is back under its first."""
    loads = {app: fleet.load(app) for app in ORDER}
    for visitors in loads.values():
        visitors.start()
    found = fleet.look("tornado", *ORDER)
    fleet.seen["tornado", "command"] = found.pop("tornado")
    for app, seen in found.items():
        fleet.seen[app, ORDER[app][0][0]] = seen
    for number in range(1, 1 + max(len(servers) for servers in ORDER.values())):
        moves = {app: servers[number % len(servers)] for app, servers in ORDER.items() if number <= len(servers)}
        begin = time.monotonic()
        done = fleet.run({app: variables for app, (_, variables) in moves.items()})
        say(f"{time.monotonic() - begin:.1f} s: {', '.join(f'{app} to {title}' for app, (title, _) in moves.items())}")
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr
        for app, code in fleet.ask("stop", *moves).items():
            fleet.stopped[app, ORDER[app][number - 1][0]] = code
        for app, seen in fleet.look(*moves).items():
            if number < len(ORDER[app]):
                fleet.seen[app, moves[app][0]] = seen
    fleet.answers = {app: visitors.stop() for app, visitors in loads.items()}
    return fleet


@pytest.mark.parametrize(("app", "title"), COMBINATIONS)
def test_an_application_runs_under_a_server(moved: Fleet, app: str, title: str) -> None:
    """Catches a combination that the table lists and nobody has run, in the sandbox and by the way of all others."""
    seen = moved.seen[app, title]
    server, _, worker_class = title.partition(" ")
    assert (program := SERVERS[server]["program"] or "board") in seen["process"], f"{program} does not run"
    if worker_class:
        assert f'worker_class = "{CLASSES[worker_class]["class"]}"' in seen["configuration"]
    assert len(seen["running"]) == 1
    assert seen["user"] == app
    assert seen["exposure"] <= 2.0
    assert seen["journal"]
    assert (seen["web_server"], seen["stranger"] != 0) == (0, True), "who may connect"


@pytest.mark.parametrize(("app", "title"), [found for found in COMBINATIONS if found[0] != "tornado"])
def test_its_visitors_get_pages_and_files(moved: Fleet, app: str, title: str) -> None:
    """Catches a migration or a static file that is not there, and an application that takes its visitors to be on plain HTTP."""
    seen = moved.seen[app, title]
    assert seen["page"]["notes"] == 0
    assert seen["page"]["static"].startswith(f"https://{app}.test/static/")
    assert seen["static"] == (200, b"body { margin: 0 }\n")


@pytest.mark.parametrize("app", ORDER)
def test_a_change_of_the_server_loses_no_request(moved: Fleet, app: str) -> None:
    """Catches a server that cuts off its connections, or one whose socket is gone before nobody asks it."""
    answers = moved.answers[app]
    say(f"{app}: {json.dumps(summary(answers))}")
    assert [(answer.request.path, answer.status, answer.error) for answer in answers if not answer.good] == []
    assert len(answers) > 100


@pytest.mark.parametrize(("app", "title"), [(app, title) for app, servers in ORDER.items() for title, _ in servers])
def test_a_server_ends_what_it_runs(moved: Fleet, app: str, title: str) -> None:
    """Catches a slot that does not start again as it was pinned, and a stop that cuts a request off where the table says that it does not."""
    code = moved.stopped[app, title]
    say(f"{app}, {title}: {'ended' if code == 0 else f'cut off, {code}'}")
    if SERVERS[title.split(" ")[0]]["ends"]:
        assert code == 0


def processes(fleet: Fleet, app: str) -> Any:
    return fleet.look(app)[app]["process"]


def test_a_senseless_combination_changes_nothing(moved: Fleet) -> None:
    before = processes(moved, "fastapi")
    done = moved.run({"fastapi": {"gunicorn_server": "waitress"}})
    assert done.returncode != 0
    assert "waitress, and gunicorn_interface: asgi" in done.stdout, done.stdout[-4000:]
    assert "changed: [" not in done.stdout
    assert processes(moved, "fastapi") == before


def test_a_server_that_is_not_there_replaces_nothing(moved: Fleet) -> None:
    """Catches a unit that starts the new server for the old slot, at its next crash or reboot."""
    done = moved.run({"tornado": {}}, gunicorn_server="gunicorn", gunicorn_application="board:Page", gunicorn_command=[])
    assert done.returncode != 0
    assert "add gunicorn to the application's requirements" in done.stdout, done.stdout[-4000:]
    with moved.machines["tornado"].host.sudo():
        moved.machines["tornado"].host.check_output("systemctl restart tornado-web@$(readlink /srv/tornado/web/live).service")
        moved.machines["tornado"].host.check_output(
            "curl --silent --fail --retry 20 --retry-delay 1 --retry-all-errors --unix-socket /srv/tornado/web/live/run/web.sock http://tornado.test/healthz"
        )
    assert moved.run({"tornado": {}}).returncode == 0
    assert moved.look("tornado")["tornado"]["web_server"] == 0
