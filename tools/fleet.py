"""The environment of a scenario, and what an operator does to it: releases, ways back, runs that are killed; with the time of each."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.console import ROOT
from tools.load import Answer, Load, Request

SITE = "https://localhost:443"
RATE = 20.0
# Every fifteenth takes two seconds
MIX = [
    *[Request("GET", "/"), Request("POST", "/entries", '{"number": {number}}'), Request("GET", "/healthz")] * 4,
    *[Request("GET", "/"), Request("GET", "/nap"), Request("POST", "/entries", '{"number": {number}}')],
]


@dataclass
class Step:
    """A run of a playbook: when, and what it said."""

    name: str
    begin: float
    end: float
    code: int
    output: str
    live: str = ""
    # Seconds from the command to the first answer of another release
    traffic: float = 0.0

    @property
    def seconds(self) -> float:
        return self.end - self.begin


@dataclass
class Fleet:
    """The environment under test, the source that is released to it, and all that was done to it."""

    address: str
    ca_file: Path
    source: Path
    inventory: str
    steps: list[Step] = field(default_factory=list)

    def variant(self, name: str, broken: str = "", tasks: tuple[str, ...] = ("common",), text: str = "") -> None:
        """Make the source another release."""
        (self.source / "variant.py").write_text(f"NAME = {name!r}\nBROKEN = {broken!r}\nTASKS = {list(tasks)!r}\n{text}")
        # Its one static file has a name of its own, as one with a hash in its name has
        shutil.rmtree(self.source / "static")
        (self.source / "static").mkdir()
        (self.source / "static" / f"{name}.css").write_text(f"/* {name} */\n")

    def command(self, playbook: str, **variables: Any) -> list[str]:
        given = {"app_source": str(self.source), **variables}
        return [
            # The controller is another machine in production: here it shares the site's cores, and must not slow down its answers
            "nice",
            str(Path(sys.executable).with_name("ansible-playbook")),
            f"--inventory={self.inventory}",
            f"--extra-vars={json.dumps(given)}",
            playbook,
        ]

    def run(self, name: str, playbook: str = "playbooks/deploy.yml", **variables: Any) -> Step:
        before, begin, traffic = self.get("/"), time.time(), 0.0
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(self.command(playbook, **variables), cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
            while process.poll() is None:
                if not traffic and self.get("/") != before:
                    traffic = time.time() - begin
                # Between two looks at who serves; the run ends by itself
                time.sleep(0.1)
            end = time.time()
            output.seek(0)
            self.steps.append(Step(name, begin, end, process.returncode, output.read(), self.get("/"), traffic))
        return self.steps[-1]

    def rest(self, name: str, load: Load, seconds: float) -> None:
        """The site as it is while nobody releases anything, for so many seconds of questions."""
        begin, asked = time.time(), len(load.answers)
        while len(load.answers) < asked + seconds * load.rate and time.time() < begin + 2 * seconds:
            # Between two looks at how many have been answered; the bound is above
            time.sleep(0.1)
        self.steps.append(Step(name, begin, time.time(), 0, "", self.get("/")))

    def kill(self, task: str, seconds: float, playbook: str = "playbooks/deploy.yml") -> bool:
        """Kill a run, with all that it has started here, so many seconds after it begins a task; whether it got there."""
        process = subprocess.Popen(
            self.command(playbook), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            # A task is named as it begins, not with its first result
            env={**os.environ, "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "true"},
        )  # fmt: skip
        begin, lines = time.time(), []
        for line in process.stdout or ():
            lines.append(line)
            if line.startswith("TASK [") and task in line:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(seconds)
                os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        self.steps.append(Step(f"killed at {task}", begin, time.time(), code, "".join(lines), self.get("/")))
        return code == -signal.SIGKILL

    def ask(self, request: Request) -> tuple[int, str]:
        client = Load(SITE, [], 1, self.ca_file, self.address).client()
        client.request(request.method, request.path, request.body or None, {"Content-Type": "application/json"} if request.body else {})
        answer = client.getresponse()
        return answer.status, answer.read().decode()

    def get(self, path: str) -> str:
        return self.ask(Request("GET", path))[1]

    def counts(self, table: str) -> dict[int, int]:
        return {int(number): int(count) for number, count in json.loads(self.get(f"/{table}"))}

    def enqueue(self, first: int, last: int, seconds: float, name: str = "common") -> None:
        body = json.dumps({"first": first, "last": last, "seconds": seconds, "name": name})
        assert self.ask(Request("POST", "/tasks", body))[0] == 202


def recap(output: str) -> dict[str, int]:
    """How many tasks changed something on each host."""
    return {host: int(changed) for host, changed in re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+)", output, re.MULTILINE)}


def failed(answers: Sequence[Answer]) -> list[Answer]:
    return [answer for answer in answers if not answer.good]
