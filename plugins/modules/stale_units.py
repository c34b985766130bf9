#!/usr/bin/python
"""Find the systemd units whose files are newer than the process that should have read them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: stale_units
short_description: Find running units that still run an older configuration
description:
  - Compares the time a unit was started (or last reloaded) with the modification times of the files that it reads.
  - A run that is killed loses its handlers. With this module the next run finds what was left behind and notifies them again.
  - Changes nothing. Reports changed when a unit is stale, so that the task can notify a handler.
options:
  units:
    description: The units to look at. A unit that does not exist or is not active is never stale.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The unit's full name, no pattern.
        type: str
        required: true
      paths:
        description:
          - What the unit reads. A directory counts with all that is in it, a link by itself and not by what it points to.
          - Paths that do not exist are passed over, and so are modification times in the future.
        type: list
        elements: path
        default: []
      since:
        description: Whether only a start makes the unit read its files (V(start)), or a reload too (V(change)).
        type: str
        choices: [start, change]
        default: start
attributes:
  check_mode:
    support: full
    description: It only reads.
author:
  - Groundcrew
"""

EXAMPLES = r"""
- name: service | Find units that still run an older configuration
  stale_units:
    units:
      - name: nginx.service
        paths: [/etc/nginx]
        since: change
  notify: Reload nginx
"""

RETURN = r"""
stale:
  description: Names of the stale units, in the order they were given.
  type: list
  elements: str
  returned: success
reasons:
  description: For each stale unit, why it is stale.
  type: dict
  returned: success
"""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from ansible.module_utils.basic import AnsibleModule

# The wall clock as it was at the event, like a file's modification time: a clock that is set later moves neither
SINCE = {"start": "ActiveEnterTimestamp", "change": "StateChangeTimestamp"}
PROPERTIES = ("Id", "ActiveState", "NeedDaemonReload", *SINCE.values())


def parse_show(output: str) -> list[dict[str, str]]:
    """The blocks of `systemctl show`, one a unit, in the order asked for."""
    blocks = (block for block in output.split("\n\n") if block.strip())
    return [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in blocks]


def parse_timestamp(text: str) -> float:
    """Seconds since the epoch from "Sat 2026-11-21 11:04:28.123456 UTC"; 0 for a time that never was."""
    words = text.split()
    if len(words) < 3:
        return 0.0
    return datetime.strptime(f"{words[1]} {words[2]}", "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC).timestamp()


def files_below(path: str) -> Iterator[str]:
    yield path
    if os.path.isdir(path) and not os.path.islink(path):
        for folder, folders, files in os.walk(path):
            yield from (os.path.join(folder, name) for name in (*folders, *files))


def newest(paths: list[str]) -> tuple[float, str]:
    """The latest modification time among all files of the paths, and whose it is. What claims to be from the future says nothing."""
    latest, now = (0.0, ""), time.time()
    for path in paths:
        for name in files_below(path):
            try:
                modified = os.lstat(name).st_mtime
            except FileNotFoundError:
                continue
            if modified <= now:
                latest = max(latest, (modified, name))
    return latest


def reason(unit: dict[str, str], paths: list[str], since: str) -> str:
    """Why a unit is stale, or nothing."""
    if unit.get("ActiveState") not in {"active", "reloading", "refreshing"}:
        return ""
    if unit.get("NeedDaemonReload") == "yes":
        return "its unit file or a drop-in has changed since systemd read them"
    modified, name = newest(paths)
    started = parse_timestamp(unit.get(SINCE[since], ""))
    if 0 < started < modified:
        return f"{name} is newer than the unit's last {'start' if since == 'start' else 'start or reload'}"
    return ""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "units": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "paths": {"type": "list", "elements": "path", "default": []},
                    "since": {"type": "str", "choices": ["start", "change"], "default": "start"},
                },
            },
        },
        supports_check_mode=True,
    )
    units = module.params["units"]
    names = list(dict.fromkeys(unit["name"] for unit in units))
    if not names:
        module.exit_json(changed=False, stale=[], reasons={})
    if patterns := [name for name in names if set(name) & set("*?[")]:
        module.fail_json(msg=f"stale_units takes names, not patterns: {', '.join(patterns)}")
    command = ["systemctl", "show", "--timestamp=us+utc", *(f"--property={name}" for name in PROPERTIES), "--", *names]
    _, output, _ = module.run_command(command, check_rc=True, environ_update={"LC_ALL": "C"})
    blocks = parse_show(output)
    if len(blocks) != len(names):
        module.fail_json(msg=f"systemctl described {len(blocks)} units, not the {len(names)} asked for", stdout=output)
    known = dict(zip(names, blocks, strict=True))
    reasons: dict[str, str] = {}
    for unit in units:
        if why := reason(known[unit["name"]], unit["paths"], unit["since"]):
            reasons.setdefault(unit["name"], why)
    module.exit_json(changed=bool(reasons), stale=list(reasons), reasons=reasons)


if __name__ == "__main__":
    main()
