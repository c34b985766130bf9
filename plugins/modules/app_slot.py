#!/usr/bin/python
"""Move a service of an application from one release to the next through two slots, so that it never stands still."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_slot
short_description: Run a release in the idle one of two slots, and move to it
description:
  - A slot is a folder, C(blue) or C(green), with a link C(release) to the release that its units run and C(run) to its sockets. The link
    C(live) names the slot that serves. It is swapped by a rename, and whoever follows it (nginx at each connection) needs no reload.
  - What a unit reads beside its release is copied when the slot is pinned, so neither a crash nor a reboot brings in what was not tried.
  - Each state is safe to ask for again, also after a run that was killed. It waits for what such a run has left at work in the same
    application's folder, whichever service it is for.
options:
  root: {description: "Folder of the slots, like /srv/textreport/web.", type: path, required: true}
  state:
    description:
      - V(recovered) moves back to the slot that served before, where a killed run has left it running and the live one does not run
        what is wanted. No release is marked bad by that.
      - V(compared) finds out whether the live slot runs what is wanted, and changes nothing.
      - V(started) stops O(slot), pins it to what is wanted and starts it.
      - V(answering) waits until O(slot) answers 200 over its own socket.
      - V(live) moves to O(slot), now and after a reboot.
      - V(drained) waits until nobody is connected to the idle slot, and fails as soon as the live one does not answer.
      - V(stopped) stops the idle slot.
      - V(returned) puts O(slot) out of service, and goes back to the other one where it was live already, once that answers, if it was
        stopped before. O(slot) ends its requests first. The release is marked bad, and the one of the other slot is current again.
    type: str
    choices: [recovered, compared, started, answering, live, drained, stopped, returned]
    required: true
  slot: {description: "The slot to act on; with V(returned) empty for the live one.", type: str, choices: ["", blue, green], default: ""}
  units:
    description: Templates of the slot's units, like textreport-web@.service, in the order of their start.
    type: list
    elements: str
    default: []
  release: {description: "Link to the release that is wanted, like /srv/textreport/current.", type: path}
  files: {description: Files that are copied for a slot when it is pinned., type: list, elements: path, default: []}
  copies: {description: "Where to, in a folder for each slot, like /etc/textreport/slots/web.", type: path}
  watched: {description: Other files and folders that make a slot outdated when their content changes., type: list, elements: path, default: []}
  followers: {description: Units of the current release that are no part of a slot., type: list, elements: str, default: []}
  run: {description: "Folder of a slot's sockets, with {slot} in it.", type: str, default: ""}
  socket: {description: Name of the socket in that folder., type: str, default: web.sock}
  paths: {description: "Paths that must answer 200; with V(started), those that must do so on a way back.", type: list, elements: str, default: [/]}
  host: {description: Host name in these requests., type: str, default: localhost}
  timeout:
    description: Seconds within which a state must be reached; with V(returned), those that the slot has to end its requests.
    type: int
    default: 30
  least: {description: "Seconds that V(drained) watches the live slot at least.", type: int, default: 0}
  wait: {description: Whether to wait until stopped units have ended., type: bool, default: true}
  who: {description: "Who is written down with V(returned). The action of the same name gives it.", type: str, default: ""}
  reason: {description: "Why V(returned) is asked for; the release is marked bad with it.", type: str, default: ""}
  bad: {description: "With V(returned), do nothing but where this release is live.", type: str, default: ""}
attributes:
  check_mode:
    support: partial
    description: V(compared) says changed where a release would move; the other states do nothing.
author: [Groundcrew]
"""
RETURN = r"""
live: {description: "The slot that serves; empty before the first.", returned: always, type: str}
idle: {description: The other one., returned: always, type: str}
release: {description: Id of the wanted release., returned: always, type: str}
was: {description: The slot that was live at the beginning., returned: always, type: str}
from: {description: Id of the release that was live at the beginning., returned: always, type: str}
reasons: {description: Why the live slot is not what is wanted., returned: always, type: list, elements: str}
leftover: {description: "Whether the idle slot runs, and was not told to stop.", returned: always, type: bool}
way_back: {description: "Whether it served before the live one, and still could: a run was killed after the switch.", returned: always, type: bool}
serving: {description: Id of the release that is live at the end., returned: always, type: str}
unsettled: {description: Whether a reboot would bring up another slot than the live one., returned: always, type: bool}
seconds: {description: How long it took., returned: always, type: float}
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.app_releases import ReleaseError, alone, audit, mark_bad, select, swap, target
from ansible.module_utils.app_slots import ask
from ansible.module_utils.basic import AnsibleModule

SLOTS = ("blue", "green")
PINNED = "pinned.json"
# A unit that systemd has started so often does not come up by itself
MOST_RESTARTS = 3
RUNNING = {"active", "reloading", "refreshing"}
# An answer that is wrong stays wrong; any other one, or none, may change while the application starts
FINAL = {301, 302, 307, 308, 400, 401, 403, 404, 405}
PROPERTIES = ("Id", "LoadState", "ActiveState", "NRestarts", "UnitFileState", "Result")


def systemctl(verb: str, units: Sequence[str] | None = None, *options: str) -> str:
    """Run systemctl; where units may be named and there are none, there is nothing to do."""
    if units is not None and not units:
        return ""
    arguments = [verb, *options, *(["--", *units] if units else [])]
    done = subprocess.run(
        ["systemctl", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode:
        raise ReleaseError(f"`systemctl {' '.join(arguments)}` ended with {done.returncode}: {done.stdout.strip()}")
    return done.stdout


def files_below(path: Path) -> Iterator[Path]:
    if path.is_dir():
        for folder, folders, names in os.walk(path):
            folders.sort()
            yield from (Path(folder, name) for name in sorted(names))
    elif path.exists():
        yield path


def connections(table: str, path: str) -> int:
    """How many connections /proc/net/unix shows at a socket, those included that nobody has accepted yet; not the socket itself."""
    listening = "00010000"
    rows = (line.split() for line in table.splitlines()[1:])
    return sum(len(row) >= 8 and row[7] == path and row[3] != listening for row in rows)


@dataclass
class Slots:
    root: Path
    units: list[str] = field(default_factory=list)
    release: str = ""
    files: list[str] = field(default_factory=list)
    copies: str = ""
    watched: list[str] = field(default_factory=list)
    run: str = ""
    socket: str = ""
    gate: dict[str, Any] = field(default_factory=dict)
    followers: list[str] = field(default_factory=list)

    @property
    def live(self) -> str:
        return str(target(self.root / "live"))

    @property
    def idle(self) -> str:
        return next(slot for slot in SLOTS if slot != self.live)

    @property
    def home(self) -> Path:
        """The application's folder, which holds its releases."""
        return self.root.parent

    @property
    def wanted(self) -> str:
        return os.path.basename(os.path.realpath(self.release)) if os.path.exists(self.release) else ""

    def pinned(self, slot: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.root / slot / PINNED).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found

    def runs(self, slot: str) -> str:
        return str(target(self.root / slot / "release")) if slot else ""

    def own(self, slot: str) -> list[str]:
        """The units that the slot was pinned with; where that is not known, those that are wanted now."""
        return [unit.replace("@.", f"@{slot}.") for unit in self.pinned(slot).get("units", self.units)]

    def states(self, slot: str) -> list[dict[str, str]]:
        shown = systemctl("show", self.own(slot), *(f"--property={name}" for name in PROPERTIES))
        return [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in shown.split("\n\n") if block.strip()]

    def known(self, slot: str) -> list[str]:
        """Those of its units that systemd has: one that is no longer wanted may be gone."""
        return [state["Id"] for state in self.states(slot) if state["LoadState"] == "loaded"]

    def digest(self) -> str:
        """Changes with whatever a slot is pinned to, but for the time of a file that has kept its content."""
        total = hashlib.sha256(json.dumps([self.units, self.run]).encode())
        for name in [*self.files, *self.watched]:
            for path in files_below(Path(name)):
                total.update(f"{path}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
        installed = Path(self.release, "venv/pyvenv.cfg")
        if installed.exists():
            # A release may be made anew, for another Python
            total.update(str(installed.stat().st_mtime_ns).encode())
        return total.hexdigest()

    def reasons(self) -> list[str]:
        live = self.live
        if not live:
            return ["no release is live yet"] if self.units or self.followers else []
        found = []
        if self.runs(live) != self.wanted:
            found.append(f"release {self.wanted or 'none'} is wanted, and {self.runs(live) or 'none'} is live")
        elif self.pinned(live).get("digest") != self.digest():
            found.append("its settings have changed")
        return found or [f"{state['Id']} is {state['ActiveState']}" for state in self.states(live) if state["ActiveState"] not in RUNNING]

    def leftover(self) -> bool:
        return any(state["ActiveState"] not in {"inactive", "failed", "deactivating"} for state in self.states(self.idle))

    def way_back(self) -> bool:
        """Whether the slot before still runs, after a run that was killed once it had switched. A slot is only pinned while the other is
        live, so of two the one that was pinned last may have proved nothing, and the other one has served."""
        if not self.live or self.pinned(self.idle).get("since", 0) >= self.pinned(self.live).get("since", 0):
            return False
        return self.up(self.idle)

    def up(self, slot: str) -> bool:
        states = self.states(slot)
        return bool(states) and all(state["ActiveState"] in RUNNING for state in states)

    def unsettled(self) -> bool:
        """Whether a reboot would bring up anything but the live slot, as after a run that was killed."""
        services = [(slot, state) for slot in SLOTS for state in self.states(slot)]
        return any((state["UnitFileState"] == "enabled") != (slot == self.live) for slot, state in services)

    def start(self, slot: str) -> None:
        if not self.wanted:
            raise ReleaseError(f"{self.release} is not there")
        if slot == self.live:
            raise ReleaseError(f"the slot {slot} is live")
        self.stop(slot)
        folder = self.root / slot
        folder.mkdir(parents=True, exist_ok=True)
        if self.copies:
            self.copy(Path(self.copies, slot))
            # For what is no part of a slot and follows the live one
            swap(folder / "copies", Path(self.copies, slot))
        if self.run:
            swap(folder / "run", self.run.replace("{slot}", slot))
        swap(folder / "release", self.home / "releases" / self.wanted)
        pinned = {"units": self.units, "followers": self.followers, "digest": self.digest(), "since": time.time()}
        if self.run:
            # A way back asks for these too, also one that another service of the release has to take
            pinned["gate"] = self.gate
        part = folder / f".{PINNED}.part"
        part.write_text(json.dumps(pinned), encoding="utf-8")
        part.replace(folder / PINNED)
        # A run that was killed may have left unit files that systemd has not read
        systemctl("daemon-reload")
        systemctl("start", self.own(slot))

    def copy(self, folder: Path) -> None:
        """Copies with the files' own modes: one of them holds secrets, which nobody else may read at any moment."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.files:
            part = folder / f".{os.path.basename(name)}.part"
            part.unlink(missing_ok=True)
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
                copy.write(Path(name).read_bytes())
            shutil.copymode(name, part)
            part.replace(folder / os.path.basename(name))

    def socket_of(self, slot: str) -> str:
        # Where it was pinned to, which may differ from what is wanted now: each application server has its own way
        pinned = self.root / slot / "run"
        return f"{os.readlink(pinned) if pinned.is_symlink() else self.run.replace('{slot}', slot)}/{self.socket}"

    def is_connected(self, slot: str) -> bool:
        return connections(Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace"), self.socket_of(slot)) > 0

    def trouble(self, slot: str) -> str:
        """Why the slot will not come up by itself, or nothing."""
        for state in self.states(slot):
            restarts = int(state.get("NRestarts") or 0)
            if state["ActiveState"] == "failed":
                return f"{state['Id']} has failed ({state['Result']})"
            if restarts >= MOST_RESTARTS:
                return f"{state['Id']} ended {restarts} times"
        return ""

    def restarts(self, slot: str) -> int:
        return sum(int(state.get("NRestarts") or 0) for state in self.states(slot))

    def move(self, slot: str) -> None:
        """The slot serves from now on. At every moment of it a reboot brings up the live slot, with the other one at worst."""
        other = next(name for name in SLOTS if name != slot)
        systemctl("enable", self.known(slot), "--quiet")
        if self.live != slot:
            swap(self.root / "live", slot)
        systemctl("disable", [state["Id"] for state in self.states(other) if state["UnitFileState"] == "enabled"], "--quiet")

    def stop(self, slot: str, wait: bool = True) -> None:
        there = [state["Id"] for state in self.states(slot) if state["LoadState"] == "loaded" or state["ActiveState"] in RUNNING]
        systemctl("stop", there, *([] if wait else ["--no-block"]))

    def back(self, slot: str, reason: str, wait: bool, who: str, drain_time: int) -> None:
        """Put a slot out of service; the other one serves, and its release is the wanted one again."""
        other = next(name for name in SLOTS if name != slot)
        failed, good = self.runs(slot), self.runs(other)
        # A slot that was not pinned anew is not to blame
        if failed and failed == target(self.home / "current") != good:
            mark_bad(self.home / "releases" / failed, reason)
            took = round(time.time() - self.pinned(slot).get("since", time.time()), 1)
            entry = {"who": who, "what": self.root.name, "from": good, "to": failed, "seconds": took, "result": "failed", "reason": reason}
            audit(Path("/var/log", self.home.name, "releases.log"), self.home.name, entry)
            if good:
                select(self.home, good)
        if good:
            # A unit whose file was removed since it was read would be started, and then not be enabled
            systemctl("daemon-reload")
            # What serves is left for what answers
            must_answer = self.live == slot and not self.up(other)
            # Workers that were told to stop end a long task first: until they start again, those of the failed slot take what comes
            systemctl("start", self.known(other))
            if must_answer and (gate := self.pinned(other).get("gate")):
                wait_for_answers(self, {**gate, "slot": other})
            self.move(other)
            # Also where another service of this host has pointed `current` back before
            systemctl("try-restart", self.pinned(slot).get("followers", []) if failed != good else [], "--no-block")
            # Some of its requests may be answered well, and not every server ends them when it is told to stop
            if (self.root / slot / "run").is_symlink():
                until(drain_time, lambda: not self.is_connected(slot))
        self.stop(slot, wait)


def until(timeout: float, done: Callable[[], bool], pause: float = 0.1) -> bool:
    """Ask again until it is done or the time is over."""
    end = time.monotonic() + timeout
    while not done():
        if time.monotonic() > end:
            return False
        # Between two questions, so that asking does not keep the host busy; the bound is above
        time.sleep(pause)
    return True


def wait_for_answers(slots: Slots, given: Mapping[str, Any]) -> None:
    slot = given["slot"]
    path = slots.socket_of(slot)
    said = ""

    def answers() -> bool:
        nonlocal said
        for url in given["paths"]:
            status, text = ask(path, url, given["host"], 5)
            said = f"{url} {text}"
            if status in FINAL:
                raise ReleaseError(said)
            if status != 200:
                if trouble := slots.trouble(slot):
                    raise ReleaseError(f"{trouble}; {said}")
                return False
        return True

    if not until(given["timeout"], answers):
        raise ReleaseError(f"not within {given['timeout']} s: {said}")


def drain(slots: Slots, given: Mapping[str, Any]) -> None:
    """Watch the live slot while the idle one ends what it does: as long as that runs, the way back is one rename."""
    live = slots.live
    through = f"{slots.root}/live/run/{given['socket']}"
    begin = time.monotonic()
    restarts = slots.restarts(live)

    def drained() -> bool:
        for url in given["paths"]:
            status, said = ask(through, url, given["host"], 10)
            if status != 200:
                raise ReleaseError(f"after the switch, {url} {said}")
        if slots.restarts(live) != restarts:
            raise ReleaseError("after the switch, it ended by itself")
        if time.monotonic() - begin < given["least"]:
            return False
        return not slots.is_connected(slots.idle)

    # Whoever is still connected when the time is over is left to the stop of the units, which waits for running requests
    until(given["timeout"], drained, pause=0.25)


def apply(given: Mapping[str, Any], check: bool) -> dict[str, Any]:
    # Who only watches may take long, and keeps nobody waiting
    with contextlib.nullcontext() if given["state"] in {"answering", "drained"} else alone(Path(given["root"]).parent):
        return step(given, check)


def step(given: Mapping[str, Any], check: bool) -> dict[str, Any]:
    begin = time.monotonic()
    slots = Slots(
        root=Path(given["root"]), units=given["units"], release=given["release"] or "", files=given["files"], copies=given["copies"] or "",
        watched=given["watched"], run=given["run"], socket=given["socket"], followers=given["followers"],
        gate={name: given[name] for name in ("paths", "host", "timeout")},
    )  # fmt: skip
    state, slot, changed = given["state"], given["slot"], False
    result: dict[str, Any] = {
        "reasons": [],
        "leftover": False,
        "way_back": False,
        "unsettled": False,
        "was": slots.live,
        "from": slots.runs(slots.live),
    }
    if state == "compared":
        result["reasons"] = slots.reasons()
        if slots.live:
            result["leftover"], result["way_back"], result["unsettled"] = slots.leftover(), slots.way_back(), slots.unsettled()
        changed = check and bool(result["reasons"] or result["leftover"] or result["unsettled"])
    elif check:
        pass
    elif state == "recovered":
        if changed := slots.way_back() and bool(slots.reasons()):
            slots.move(slots.idle)
    elif state == "started":
        slots.start(slot)
        changed = True
    elif state == "answering":
        wait_for_answers(slots, given)
    elif state == "live":
        slots.move(slot)
        changed = True
    elif state == "drained":
        drain(slots, given)
    elif state == "stopped":
        slots.stop(slots.idle, given["wait"])
        changed = True
    elif slot or (slots.runs(slots.live) == given["bad"] and slots.runs(slots.idle) not in {"", given["bad"]}):
        try:
            slots.back(slot or slots.live, given["reason"], given["wait"], given["who"], given["timeout"])
        except ReleaseError as error:
            raise ReleaseError(f"{given['reason']}. There is no way back: {error}") from error
        changed = True
    return {
        **result, "changed": changed, "live": slots.live, "idle": slots.idle, "release": slots.wanted,
        "serving": slots.runs(slots.live),
        "seconds": round(time.monotonic() - begin, 3),
    }  # fmt: skip


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "state": {
                "type": "str", "required": True,
                "choices": ["recovered", "compared", "started", "answering", "live", "drained", "stopped", "returned"],
            },
            "slot": {"type": "str", "choices": ["", *SLOTS], "default": ""},
            "units": {"type": "list", "elements": "str", "default": []},
            "followers": {"type": "list", "elements": "str", "default": []},
            "release": {"type": "path"},
            "files": {"type": "list", "elements": "path", "default": []},
            "copies": {"type": "path"},
            "watched": {"type": "list", "elements": "path", "default": []},
            "run": {"type": "str", "default": ""},
            "socket": {"type": "str", "default": "web.sock"},
            "paths": {"type": "list", "elements": "str", "default": ["/"]},
            "host": {"type": "str", "default": "localhost"},
            "timeout": {"type": "int", "default": 30},
            "least": {"type": "int", "default": 0},
            "wait": {"type": "bool", "default": True},
            "who": {"type": "str", "default": ""},
            "reason": {"type": "str", "default": ""},
            "bad": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )  # fmt: skip
    os.umask(0o022)
    try:
        module.exit_json(**apply(module.params, module.check_mode))
    except (ReleaseError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
