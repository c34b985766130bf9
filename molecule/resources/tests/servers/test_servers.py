"""What docs/servers.md promises of every server and application: the same slots, gate, sandbox and journal, and no request lost between them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from molecule.resources.tests.servers.conftest import COMBINATIONS, ORDER, Machine
from tools.console import say
from tools.load import summary
from tools.servers import load

SERVERS, CLASSES = load()["servers"], load()["classes"]


@pytest.mark.parametrize(("app", "title"), COMBINATIONS)
def test_an_application_runs_under_a_server(moved: Machine, app: str, title: str) -> None:
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
def test_its_visitors_get_pages_and_files(moved: Machine, app: str, title: str) -> None:
    """Catches a migration or a static file that is not there, and an application that takes its visitors to be on plain HTTP."""
    seen = moved.seen[app, title]
    assert seen["page"]["notes"] == 0
    assert seen["page"]["static"].startswith(f"https://{app}.test/static/")
    assert seen["static"] == (200, b"body { margin: 0 }\n")


@pytest.mark.parametrize("app", ORDER)
def test_a_change_of_the_server_loses_no_request(moved: Machine, app: str) -> None:
    """Catches a server that cuts off its connections, or one whose socket is gone before nobody asks it."""
    answers = moved.answers[app]
    say(f"{app}: {json.dumps(summary(answers))}")
    assert [(answer.request.path, answer.status, answer.error) for answer in answers if not answer.good] == []
    assert len(answers) > 100


@pytest.mark.parametrize(("app", "title"), [(app, title) for app, servers in ORDER.items() for title, _ in servers])
def test_a_server_ends_what_it_runs(moved: Machine, app: str, title: str) -> None:
    """Catches a slot that does not start again as it was pinned, and a stop that cuts a request off where the table says that it does not."""
    code = moved.stopped[app, title]
    say(f"{app}, {title}: {'ended' if code == 0 else f'cut off, {code}'}")
    if SERVERS[title.split(" ")[0]]["ends"]:
        assert code == 0


def processes(machine: Machine, app: str) -> Any:
    return machine.look(app)[app]["process"]


def test_a_senseless_combination_changes_nothing(moved: Machine) -> None:
    before = processes(moved, "fastapi")
    done = moved.run({"fastapi": {"gunicorn_server": "waitress"}})
    assert done.returncode != 0
    assert "waitress, and gunicorn_interface: asgi" in done.stdout, done.stdout[-4000:]
    assert "changed: [" not in done.stdout
    assert processes(moved, "fastapi") == before


def test_a_server_that_is_not_there_replaces_nothing(moved: Machine) -> None:
    """Catches a unit that starts the new server for the old slot, at its next crash or reboot."""
    done = moved.run({"tornado": {"gunicorn_server": "gunicorn", "gunicorn_application": "board:Page"}})
    assert done.returncode != 0
    assert "add gunicorn to the application's requirements" in done.stdout, done.stdout[-4000:]
    with moved.host.sudo():
        moved.host.check_output("systemctl restart tornado-web@$(readlink /srv/tornado/web/live).service")
        moved.host.check_output(
            "curl --silent --fail --retry 20 --retry-delay 1 --retry-all-errors --unix-socket /srv/tornado/web/live/run/web.sock http://tornado.test/healthz"
        )
    assert moved.run({"tornado": {}}).returncode == 0
    assert moved.look("tornado")["tornado"]["web_server"] == 0
