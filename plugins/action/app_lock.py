"""Hold the lock of an environment for this run, or free it: says who asks, and takes over the lock of a run that has ended.

    - name: lock | Let nobody else release at the same time
      app_lock:
        file: /run/groundcrew/textreport-release
        state: held

The run is the ansible-playbook process on the controller. Another run from the same controller sees whether it still lives; from
elsewhere that is unknown, and the lock counts as left behind when its lease is over.
"""

from __future__ import annotations

import getpass
import os
import socket
import time
import typing as t
from pathlib import Path

from ansible.plugins.action import ActionBase


def started(pid: int) -> str:
    """When a process started, in ticks since boot; nothing where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except OSError:
        return ""


def machine() -> str:
    """This boot of this machine: process ids mean something only there, and only in their own namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}-{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return socket.gethostname()


def this_run() -> dict[str, t.Any]:
    """The run that this task belongs to; Ansible's workers are children of it."""
    pid = os.getppid()
    who = os.environ.get("GROUNDCREW_WHO") or f"{getpass.getuser()}@{socket.gethostname()}"
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    return {"id": f"{pid}-{started(pid)}", "machine": machine(), "who": who, "since": since, "start": time.time()}


def has_ended(holder: t.Mapping[str, t.Any]) -> bool:
    """Whether it is certain that a run has ended."""
    if holder.get("machine") != machine():
        return False
    pid, _, when = str(holder["id"]).partition("-")
    return not pid.isdigit() or started(int(pid)) != when


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs the module, a second time where the lock's holder has ended."""

    # For app_slot
    this_run = staticmethod(this_run)

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        arguments = {**self._task.args, "holder": this_run()}
        result: dict[str, t.Any] = self._execute_module("app_lock", module_args=arguments, task_vars=task_vars)
        if result.get("failed") or self._task.args["state"] == "free":
            return result
        holder = result["holder"]
        if not result["mine"] and has_ended(holder):
            again = {**arguments, "instead": holder["id"]}
            result = self._execute_module("app_lock", module_args=again, task_vars=task_vars)
            result["taken_over_from"] = holder["who"]
        # A check run releases nothing
        if not result.get("failed") and not result["mine"] and not self._task.check_mode:
            holder = result["holder"]
            result["failed"] = True
            result["msg"] = (
                f"{holder['who']} releases since {holder.get('since', 'a time unknown')}: wait for that run to end. "
                f"Where it is gone for good, free the lock: remove {self._task.args['file']} on {(task_vars or {}).get('inventory_hostname')}."
            )
        return result
