"""What Celery promises: tasks are done, and neither a kill, a restart nor a broken application loses one."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("as_root")
BEAT = "probe-beat.service"
CELERY = "/srv/probe/current/venv/bin/celery --app tasks:celery"
NAMES = (f"{os.getpid()}-{number}" for number in itertools.count())
Converge = Callable[..., Any]
Eventually = Callable[..., Any]


def in_unit(host: Any, command: str) -> str:
    """Run a command as the application, with its environment."""
    return str(host.check_output(f"systemd-run --wait --pipe --collect --quiet --unit=probe-test-{next(NAMES)} {command}"))


def enqueue(host: Any, task: str, *arguments: object) -> None:
    in_unit(host, f"{CELERY} call tasks.{task} --args='{json.dumps(arguments)}'")


def marks(host: Any, name: str) -> list[str]:
    return str(host.run(f"cat /srv/probe/shared/{name}").stdout).split()


def worker(host: Any, name: str) -> str:
    """Return the unit of a worker in the live slot."""
    return f"probe-worker-{name}@{host.check_output('readlink /srv/probe/worker/live')}.service"


def main_process(host: Any, unit: str) -> str:
    return str(host.check_output(f"systemctl show --property=MainPID --value {unit}"))


def journal(host: Any, unit: str) -> str:
    return str(host.check_output(f"journalctl --no-pager --output=cat --unit={unit}"))


@pytest.mark.parametrize("task", ["mark", "maintain"])
def test_tasks_of_each_queue_are_done(host: Any, eventually: Eventually, task: str) -> None:
    """Catches a queue that no worker takes from."""
    name = next(NAMES)
    enqueue(host, task, name)
    assert eventually(lambda: marks(host, name))


@pytest.mark.parametrize("name", ["default", "maintenance"])
def test_sandbox(host: Any, exposure: Any, name: str) -> None:
    """Catches workers that run as root, or in a sandbox with holes."""
    unit = worker(host, name)
    assert host.check_output("ps -o user= -p %s", main_process(host, unit)).strip() == "probe"
    assert exposure(unit) <= 2.0


def test_tasks_are_acknowledged_late(host: Any) -> None:
    """Catches settings of the role that do not reach a worker, whatever the application says itself."""
    settings = in_unit(host, f"{CELERY} inspect conf")
    assert '"task_acks_late": true' in settings
    assert '"task_reject_on_worker_lost": true' in settings


def test_beat_runs_on_one_host(host: Any, eventually: Eventually) -> None:
    """Catches a schedule that nobody keeps, or that two hosts keep."""
    variables = host.ansible.get_variables()
    wanted = variables["inventory_hostname"] == sorted(variables["groups"]["all"])[0]
    assert (host.run(f"systemctl is-active {BEAT}").stdout.strip() == "active") == wanted
    assert (host.run(f"systemctl is-enabled {BEAT}").stdout.strip() == "enabled") == wanted
    assert host.file(f"/etc/systemd/system/{BEAT}").exists == wanted
    if wanted:
        tried = host.check_output("realpath /srv/probe/worker/live/release/src")
        assert host.check_output("readlink /proc/%s/cwd", main_process(host, BEAT)) == tried
        before = len(marks(host, "beat"))
        assert eventually(lambda: len(marks(host, "beat")) > before)


def test_a_task_survives_the_kill_of_its_process(host: Any, eventually: Eventually) -> None:
    """Catches a task that is lost with the child that ran it."""
    name = next(NAMES)
    enqueue(host, "nap", name, 4)
    (process,) = eventually(lambda: marks(host, f"{name}.begun"))
    host.check_output("kill -KILL %s", process)
    assert eventually(lambda: marks(host, f"{name}.done"))
    assert len(marks(host, f"{name}.begun")) == 2


def test_a_task_survives_the_kill_of_its_worker(host: Any, eventually: Eventually) -> None:
    """Catches a worker that stays down, or a task that is lost with it."""
    name = next(NAMES)
    enqueue(host, "nap", name, 4)
    eventually(lambda: marks(host, f"{name}.begun"))
    unit = worker(host, "default")
    before = main_process(host, unit)
    host.check_output(f"systemctl kill --signal=KILL {unit}")
    assert eventually(lambda: main_process(host, unit) not in {before, "0"})
    assert eventually(lambda: marks(host, f"{name}.done"), within=60)


def test_a_stop_waits_for_running_tasks(host: Any, eventually: Eventually) -> None:
    """Catches a restart that cuts off a task: it must be done once, by the process that began it."""
    name = next(NAMES)
    enqueue(host, "nap", name, 4)
    eventually(lambda: marks(host, f"{name}.begun"))
    host.check_output(f"systemctl restart {worker(host, 'default')}")
    assert marks(host, f"{name}.done") == marks(host, f"{name}.begun")
    # There is no sign of what must not happen: the new process would have begun the task again by now
    time.sleep(1)
    assert len(marks(host, f"{name}.begun")) == 1


def test_a_changed_environment_is_run_by_the_next_run(host: Any, converge: Converge, eventually: Eventually) -> None:
    """Catches a change, or a run killed before its move, that leaves old workers running for good, or two sets of them."""
    before, name = worker(host, "default"), next(NAMES)
    host.check_output("echo CHANGED=1 >> /etc/probe/environment")
    result = converge()
    assert result.returncode == 0, result.stdout
    assert worker(host, "default") != before
    if host.service(BEAT).is_running:
        host.check_output("grep -qz CHANGED=1 /proc/%s/environ", main_process(host, BEAT))
    enqueue(host, "mark", name)
    assert eventually(lambda: marks(host, name))
    assert eventually(lambda: not host.service(before).is_running)
    assert host.run(f"systemctl is-enabled {before}").stdout.strip() == "disabled"
    assert converge().settled


def test_a_probe_leaves_nothing_in_the_broker(host: Any) -> None:
    """Catches a key of each release that stays in Redis for good."""
    keys = "import tasks; print(list(tasks.celery.connection().default_channel.client.scan_iter('*groundcrew.probe*')))"
    assert in_unit(host, f'/srv/probe/current/venv/bin/python -c "{keys}"') == "[]"


def test_an_unknown_task_waits_for_a_release_that_knows_it(host: Any, eventually: Eventually) -> None:
    """Catches a task of a newer release that an older worker throws away, as Celery does."""
    name, older, unit = next(NAMES), worker(host, "maintenance"), worker(host, "default")
    slot = host.check_output("readlink /srv/probe/worker/live")
    giving = f"probe-celery-parked@{slot}.service"

    def parked() -> int:
        return int(in_unit(host, "/srv/probe/current/venv/bin/python -P /usr/local/lib/groundcrew-celery.py count tasks:celery"))

    enqueue(host, "newer", name)
    assert eventually(lambda: parked() == 1)
    host.check_output(f"systemctl restart {unit}")
    assert eventually(lambda: "parked tasks are unknown to this release too" in journal(host, giving))
    assert parked() == 1
    # As a release that knows the task, beside a worker of an older one
    pinned = f"/etc/probe/slots/worker/{slot}/environment"
    host.check_output(f"echo NEWER=1 >> {pinned} && systemctl restart {unit} {giving}")
    assert eventually(lambda: f"waiting for the end of {older.split('@')[0].removeprefix('probe-worker-')}" in journal(host, giving))
    assert parked() == 1
    # The last older one goes
    host.check_output(f"systemctl restart {older} && sed -i /NEWER/d {pinned}")
    assert eventually(lambda: marks(host, name))
    assert eventually(lambda: parked() == 0)
    host.check_output(f"systemctl restart {unit} {older} {giving}")


def test_a_broken_application_replaces_nothing(host: Any, converge: Converge) -> None:
    """Catches a move to tasks that do not load, and a failure that does not say why."""
    before = main_process(host, worker(host, "default"))
    host.check_output("cp -p /etc/probe/environment /root/environment && echo BREAK=1 >> /etc/probe/environment")
    result = converge()
    host.check_output("cp /root/environment /etc/probe/environment")
    assert result.returncode != 0
    assert "RuntimeError: broken on purpose" in result.stdout
    assert main_process(host, worker(host, "default")) == before


@pytest.mark.one_release
def test_a_worker_that_is_no_longer_wanted_goes(host: Any, converge: Converge) -> None:
    """Catches a worker that goes on taking tasks from a queue after it was taken out of the variables."""
    more = [
        {"name": "default", "queues": ["default"]},
        {"name": "maintenance", "queues": ["maintenance"]},
        {"name": "spare", "queues": ["spare"]},
    ]
    assert converge(celery_workers=more).returncode == 0
    spare = worker(host, "spare")
    assert host.service(spare).is_running
    assert converge().returncode == 0
    assert not host.service(spare).is_running
    assert not host.file("/etc/systemd/system/probe-worker-spare@.service").exists


@pytest.mark.one_release
def test_without_workers_nothing_is_left(host: Any, converge: Converge) -> None:
    """Catches an application without Celery that fails the run, or whose old workers and checks stay."""
    units = "systemctl list-unit-files --no-legend 'probe-worker-*' 'probe-beat*' 'probe-celery-*'"
    assert host.run(units).stdout
    for variables in ({"celery_workers": [], "celery_beat": True}, {"celery_workers": [], "celery_beat": False}):
        result = converge(**variables)
        assert result.returncode == 0, result.stdout
        assert host.service(BEAT).is_running == variables["celery_beat"]
        assert converge(**variables).settled
    assert host.run(units).stdout == ""
    assert host.run("pgrep --uid probe").rc != 0
    assert converge().returncode == 0
    assert host.service(worker(host, "default")).is_running
