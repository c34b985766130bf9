"""Which step follows which, and what is done where one fails: the roles' own tasks, with the slots stood in for. A host is a case."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
STEPS = ROOT / "tests/fixtures/steps"
MOVES = {"reasons": ["release new is wanted"]}
# What the slots of each host say: nothing is to be done where a case says nothing
CASES: dict[str, dict[str, Any]] = {
    "settled": {},
    "moves": MOVES,
    "first": {**MOVES, "live": "", "idle": "blue", "from": ""},
    "killed": {"leftover": True, "unsettled": True},
    "killed-and-bad": {"leftover": True, "way_back": True, "fails": "drained"},
    "recovers": {**MOVES, "does": "recovered"},
    "silent": {**MOVES, "fails": "answering"},
    "crashing": {**MOVES, "fails": "drained"},
    "settings": {**MOVES, "fails": "answering", "from": "new"},
    "unreadable": {"fails": "compared"},
    "untested": MOVES,
}
Run = dict[str, Any]
PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The calls and the output of both roles, for all cases at once."""
    folder = tmp_path_factory.mktemp("steps")
    (folder / "cases.json").write_text(json.dumps(CASES))
    found = {}
    cases = {"gunicorn": [case for case in CASES if case != "untested"], "celery": ["settled", "moves", "first", "untested"]}
    for role, names in cases.items():
        variables = {
            "ansible_python_interpreter": sys.executable, f"{role}_name": "{{ inventory_hostname }}", f"{role}_application": "shop:app",
            f"{role}_root": "/srv/{{ inventory_hostname }}/current", "gunicorn_companions": [{"host": "worker1", "slots": "/srv/companion/worker"}],
        }  # fmt: skip
        hosts = {"all": {"hosts": dict.fromkeys([*names, "worker1"]), "vars": variables}}
        tasks = [{"name": "Run", "ansible.builtin.import_role": {"name": role, "tasks_from": "service"}}]
        (folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
        (folder / "play.yml").write_text(yaml.safe_dump([{"name": "Run", "hosts": "all:!worker1", "gather_facts": False, "tasks": tasks}]))
        calls = folder / f"{role}.calls"
        environment = {
            **os.environ, "STEPS_CASES": str(folder / "cases.json"), "STEPS_CALLS": str(calls), "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_ACTION_PLUGINS": f"{STEPS / 'action'}:{ROOT / 'plugins/action'}", "PATH": f"{STEPS / 'bin'}:{os.environ['PATH']}",
        }  # fmt: skip
        command = [str(PLAYBOOK), "-i", str(folder / "hosts.yml"), "-c", "local", str(folder / "play.yml")]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
        found[role] = {"output": done.stdout, "calls": [json.loads(line) for line in calls.read_text().splitlines()]}
    return found


def states(run: Run, case: str) -> list[str]:
    return [call["state"] for call in run["calls"] if call["case"] == case]


def call(run: Run, case: str, state: str) -> dict[str, Any]:
    (found,) = [call for call in run["calls"] if (call["case"], call["state"]) == (case, state)]
    return dict(found)


@pytest.mark.parametrize(
    ("case", "wanted"),
    [
        ("settled", ["recovered", "compared", "answering"]),
        ("moves", ["recovered", "compared", "started", "answering", "live", "drained", "stopped"]),
        ("first", ["recovered", "compared", "started", "answering", "live", "drained"]),
        ("killed", ["recovered", "compared", "answering", "live", "drained", "stopped"]),
        ("killed-and-bad", ["recovered", "compared", "answering", "drained", "returned"]),
        ("recovers", ["recovered", "drained", "compared", "started", "answering", "live", "drained", "stopped"]),
        ("silent", ["recovered", "compared", "started", "answering", "returned"]),
        ("crashing", ["recovered", "compared", "started", "answering", "live", "drained", "returned"]),
        ("unreadable", ["recovered", "compared"]),
    ],
)
def test_requests_move_step_by_step(runs: dict[str, Run], case: str, wanted: list[str]) -> None:
    """Catches a switch before the gate, a stop before the end of the requests, and a failure that leaves the new slot."""
    assert states(runs["gunicorn"], case) == wanted


@pytest.mark.parametrize(
    ("case", "wanted"),
    [
        ("settled", ["recovered", "compared"]),
        ("moves", ["recovered", "compared", "started", "live", "stopped"]),
        ("first", ["recovered", "compared", "started", "live"]),
        ("untested", ["recovered", "compared", "started", "returned"]),
    ],
)
def test_tasks_move_step_by_step(runs: dict[str, Run], case: str, wanted: list[str]) -> None:
    """Catches old workers that stop before the new ones have shown that they do tasks."""
    assert states(runs["celery"], case) == wanted


def test_the_new_slot_is_the_one_that_moves(runs: dict[str, Run]) -> None:
    assert {call(runs["gunicorn"], "moves", state)["slot"] for state in ("started", "answering", "live")} == {"green"}
    assert call(runs["gunicorn"], "killed", "live")["slot"] == "blue"
    assert call(runs["gunicorn"], "crashing", "returned")["slot"] == "green"
    assert call(runs["gunicorn"], "killed-and-bad", "returned")["slot"] == "blue"


def test_a_failure_says_why_and_what_serves(runs: dict[str, Run]) -> None:
    output = runs["gunicorn"]["output"]
    assert "drained went wrong" in output
    assert "Release old serves, as before." in output
    assert "Release new is marked bad, and stays in /srv/crashing/releases/new." in output
    assert "Release new is marked bad, and stays in /srv/killed-and-bad/releases/new." in output
    assert "is marked bad, and stays in /srv/settings" not in output
    assert "--unit=silent-web@green.service" in output
    assert "/srv/unreadable/releases/new" not in output
    assert "has not done a task within 330 s" in runs["celery"]["output"]
    assert "--unit=untested-worker-default@green.service" in runs["celery"]["output"]
    assert re.search(r"tasks that the failed release did not know\] \**\n[^\[]*changed: \[untested\]", runs["celery"]["output"])


def test_a_release_that_failed_is_marked_on_the_other_hosts(runs: dict[str, Run]) -> None:
    """Catches a host that takes up, or goes back to, a release that has failed elsewhere; a setting that failed marks nothing."""
    found = [(call["release"], call["state"]) for call in runs["gunicorn"]["calls"] if call["case"] == "another host"]
    assert found == [("new", "bad")] * 3 * (len(CASES) - 1)


def batches(folder: Path, role: str, hosts: dict[str, dict[str, Any]], serial: int) -> Run:
    """The calls and the output of a role on hosts of which one failure ends the run, with a hook that fails too."""
    # Of the workers' companions, none can go back
    (folder / "cases.json").write_text(json.dumps({**hosts, **({"companion": {"fails": "returned"}} if role == "celery" else {})}))
    (folder / "ill.yml").write_text(yaml.safe_dump([{"name": "Fail", "ansible.builtin.fail": {"msg": "the hook broke"}}]))
    variables = {
        "ansible_python_interpreter": sys.executable, f"{role}_name": "{{ inventory_hostname }}", f"{role}_application": "shop:app",
        f"{role}_root": "/srv/{{ inventory_hostname }}/current", f"{role}_companions": [{"host": "elsewhere", "slots": "/srv/companion/slots"}],
        f"{role}_hooks": {"after_failure": [str(folder / "ill.yml")]},
    }  # fmt: skip
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": dict.fromkeys([*hosts, "elsewhere"]), "vars": variables}}))
    tasks = [{"name": "Run", "ansible.builtin.import_role": {"name": role, "tasks_from": "service"}}]
    play = {"name": "Run", "hosts": "all:!elsewhere", "serial": serial, "any_errors_fatal": True, "gather_facts": False, "tasks": tasks}
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    environment = {
        **os.environ, "STEPS_CASES": str(folder / "cases.json"), "STEPS_CALLS": str(folder / "calls"), "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_ACTION_PLUGINS": f"{STEPS / 'action'}:{ROOT / 'plugins/action'}", "PATH": f"{STEPS / 'bin'}:{os.environ['PATH']}",
    }  # fmt: skip
    command = [str(PLAYBOOK), "-i", str(folder / "hosts.yml"), "-c", "local", str(folder / "play.yml")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0, done.stdout
    return {"output": done.stdout, "calls": [json.loads(line) for line in (folder / "calls").read_text().splitlines()]}


# Of a batch, the host that failed and the one that did not; then one after the other
@pytest.mark.parametrize("serial", [2, 1])
def test_companions_go_back_where_no_host_serves_the_release(tmp_path: Path, serial: int) -> None:
    """Catches workers that stay on a release which no server runs, or leave it to servers that run it; and what is said of a healthy host."""
    run = batches(tmp_path, "gunicorn", {"app1": MOVES, "app2": {**MOVES, "fails": "answering"}}, serial)
    companions = [call for call in run["calls"] if call["root"] == "/srv/companion/slots"]
    back = {"state": "returned", "bad": "new", "units": [], "reason": "it failed on app2"}
    assert [{name: call[name] for name in back} for call in companions] == ([back] * 2 if serial == 2 else [])
    reasons = {call["case"]: call["reason"] for call in run["calls"] if call["state"] == "returned" and call not in companions}
    assert reasons == {"app2": "answering went wrong", **({"app1": "another host failed: app2"} if serial == 2 else {})}
    assert {call["reason"] for call in run["calls"] if call["state"] == "bad"} == {"it failed on app2"}
    assert "answering went wrong\n" in run["output"].split("Stop with the reason", 1)[1]
    assert ("--unit=app1-web@green.service" in run["output"], "--unit=app2-web@green.service" in run["output"]) == (False, True)
    assert "A hook after_failure failed: the hook broke" in run["output"]


@pytest.mark.parametrize("first", [False, True])
def test_workers_that_fail_bring_back_the_servers_that_moved_before(tmp_path: Path, first: bool) -> None:
    """Catches a release that is wanted where its workers have failed, and a new host of workers that takes a good one from the servers."""
    run = batches(tmp_path, "celery", {"worker1": MOVES, "untested": {**MOVES, **({"live": "", "from": ""} if first else {})}}, 2)
    found = [(call["state"], call["bad"], call["reason"]) for call in run["calls"] if call["root"] == "/srv/companion/slots"]
    assert found == [("returned", "new", "its workers failed on untested")] * (1 if first else 2)
    marks = [call for call in run["calls"] if call["state"] == "bad"]
    assert [(call["release"], call["reason"]) for call in marks] == [("new", "its workers failed on untested")] * 4
    assert "Not all companions went back: One or more items failed" in run["output"]
    assert call(run, "worker1", "returned")["reason"] == "another host failed: untested"
    assert "has not done a task within 330 s" in run["output"].split("Stop with the reason", 1)[1]
    assert "A hook after_failure failed: the hook broke" in run["output"]


def go_back(folder: Path, release: str = "") -> subprocess.CompletedProcess[str]:
    """The role's own tasks with its own module; a host is a folder."""
    tasks = [{"name": "Go back", "ansible.builtin.import_role": {"name": "app", "tasks_from": "back"}}]
    play = {"name": "Go back", "hosts": "all", "gather_facts": False, "any_errors_fatal": True, "tasks": tasks}
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    variables = {
        "ansible_python_interpreter": sys.executable,
        "app_root": str(folder / "{{ inventory_hostname }}"),
        "app_name": "shop",
        "app_back_to": release,
    }
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": dict.fromkeys(["app1", "app2"]), "vars": variables}}))
    command = [str(PLAYBOOK), "-i", str(folder / "hosts.yml"), "-c", "local", str(folder / "play.yml")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def test_all_hosts_go_back_to_the_same_release(tmp_path: Path) -> None:
    """Catches hosts that part, or meet at a release that is bad on one of them."""
    for host in ("app1", "app2"):
        home = tmp_path / host / "shop"
        for number, name in enumerate(["one", "two", "three"]):
            (home / "releases" / name).mkdir(parents=True)
            os.utime(home / "releases" / name, (number, number))
        (home / "current").symlink_to("releases/three")
    (tmp_path / "app2/shop/releases/two/bad").write_text("Monday it fell over\n")
    done = go_back(tmp_path, "two")
    assert "on app2 it is marked bad; name another one, or deploy it again. Monday it fell over" in done.stdout
    assert "Let others release" in done.stdout
    assert [os.readlink(tmp_path / host / "shop/current") for host in ("app1", "app2")] == ["releases/three"] * 2
    done = go_back(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "From three to one." in done.stdout
    assert "set app_ref to it" in done.stdout
    assert [os.readlink(tmp_path / host / "shop/current") for host in ("app1", "app2")] == ["releases/one"] * 2


def run_app(folder: Path, hosts: dict[str, Any], tasks_from: str = "main", **variables: Any) -> tuple[str, list[dict[str, Any]]]:
    """The output of the role's tasks in a play that shall fail as a whole, and what they called: with modules and programs stood in for."""
    role = {"name": "Run", "ansible.builtin.import_role": {"name": "app", "tasks_from": tasks_from}}
    later = {"name": "Go on", "ansible.builtin.debug": {"msg": "The next play runs."}}
    plays = [
        {"name": "Play", "hosts": "all", "gather_facts": False, "any_errors_fatal": True, "tasks": [role]},
        {"name": "Play on", "hosts": "all", "gather_facts": False, "tasks": [later]},
    ]
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    (folder / "play.yml").write_text(yaml.safe_dump(plays))
    given = {
        "app_name": "shop", "app_source": str(ROOT / "app"), "app_ref": "v2", "app_lock_host": "app1",
        "__app_locked": {"holder": {"who": "ann@desk", "start": 1.0}}, "__app_artifact": {"release": "new", "commit": "c0ffee"}, **variables,
    }  # fmt: skip
    environment = {
        **os.environ, "STEPS_CALLS": str(folder / "calls"), "ANSIBLE_NOCOLOR": "1", "PATH": f"{folder}:{os.environ['PATH']}",
        "ANSIBLE_ACTION_PLUGINS": f"{STEPS / 'action'}:{ROOT / 'plugins/action'}",
    }  # fmt: skip
    command = [str(PLAYBOOK), "-i", str(folder / "hosts.yml"), "-c", "local", "-e", json.dumps(given), str(folder / "play.yml")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    return done.stdout, [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def program(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_a_release_that_fails_lets_others_release(tmp_path: Path) -> None:
    """Catches a lock that outlives a run that failed, hosts that go on where another one failed, and a failure that nobody wrote down."""
    # The first module of the role fails on app1, and does nothing on app2
    nothing = program(tmp_path / "python", """echo '{"changed": false}'""")
    hosts = {"app1": {"ansible_python_interpreter": "/nonexistent"}, "app2": {"ansible_python_interpreter": nothing}}
    output, calls = run_app(tmp_path, hosts, __app_release={"current": "old"})
    assert "install | Install what a virtual environment and the application need: " in output
    assert "It failed on another host." in output
    assert "The next play runs." not in output
    locks = [(call["state"], call["file"]) for call in calls if call.get("called") == "app_lock"]
    assert locks == [("held", "/run/groundcrew/shop-release"), *[("free", "/run/groundcrew/shop-release")] * 2]
    assert [(call["state"], call["release"]) for call in calls if call["case"] == "another host"] == [("bad", "new")] * 2
    lines = {call["case"]: call["entry"] for call in calls if call.get("called") == "app_audit"}
    wanted = {"who": "ann@desk", "what": "deploy", "from": "old", "to": "new", "ref": "v2", "commit": "c0ffee", "result": "failed"}
    assert {host: entry | wanted for host, entry in lines.items()} == lines
    assert lines["app1"]["reason"].startswith("install | Install what a virtual environment and the application need: ")
    assert lines["app2"]["reason"] == "It failed on another host."


def test_a_release_that_was_not_built_has_reached_no_host(tmp_path: Path) -> None:
    """Catches a failure before the upload that itself fails as it is written down."""
    _, calls = run_app(tmp_path, {"app1": {"ansible_python_interpreter": "/nonexistent"}})
    assert [call.get("state") for call in calls] == ["held", "free"]


def test_static_files_of_a_killed_run_are_no_longer_made(tmp_path: Path) -> None:
    """Catches a folder that is emptied under a command which still fills it, and a run that fails because that one's unit is there yet."""
    note = """printf '{"called": "%s", "case": "%s"}\\n' """
    program(tmp_path / "systemctl", note + """systemctl "$*" >> "$STEPS_CALLS"; [ "$1" != stop ] || exit 5""")
    there = "Failed to start transient service unit: Unit shop-static.service was already loaded or has a fragment file."
    again = f"""[ -e {tmp_path}/once ] || {{ touch {tmp_path}/once; echo "{there}" >&2; exit 1; }}"""
    program(tmp_path / "systemd-run", f"""{note} systemd-run shop >> "$STEPS_CALLS"\n{again}""")
    hosts = {"app1": {"ansible_python_interpreter": sys.executable}}
    output, calls = run_app(
        tmp_path, hosts, "collect", app_static_folder="static", app_static_command="make static", __app_release={"current": "old"}
    )
    assert "The next play runs." in output
    steps = [(call["called"], call["case"] if call["called"] == "systemctl" else call.get("state", "")) for call in calls]
    assert steps == [
        ("systemctl", "stop shop-static.service"),
        ("app_static", "open"),
        ("systemctl", "daemon-reload"),
        ("systemd-run", ""),
        ("systemd-run", ""),
        ("app_static", "sealed"),
    ]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 0", "none pending"),
        ("echo FAILED: Database is not on all head revisions >&2; exit 255", "pending"),
        ("echo sh: 1: alembic: not found >&2; exit 127", "unknown, they could not be asked"),
        ("echo 'Traceback (most recent call last):' >&2; exit 1", "unknown, they could not be asked"),
        ("exit 200", "unknown, they could not be asked"),
    ],
)
def test_status_knows_what_is_pending_from_what_was_not_asked(tmp_path: Path, script: str, said: str) -> None:
    """Catches a database that is away and is said to lack a migration."""
    program(tmp_path / "systemd-run", script)
    hosts = {"app1": {"ansible_python_interpreter": sys.executable}}
    output, _ = run_app(tmp_path, hosts, "status", app_pending_command="alembic current --check-heads", __app_status={"table": "app1"})
    assert f"Migrations: {said}\n" in output, output
