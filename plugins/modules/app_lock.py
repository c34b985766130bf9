#!/usr/bin/python
"""One release at a time: a lock that stands on a host of the environment, with who holds it and since when."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_lock
short_description: Hold the lock of an environment, or free it
description:
  - The lock is a file, and one run at a time reads and writes it, so of two runs one gets it, from whichever controllers they come.
  - A run does not call it itself but the action of the same name, which says who holds the lock, and knows whether that run still lives.
options:
  file: {description: "The lock, like /run/groundcrew/textreport-release. Its folder is made for root alone.", type: path, required: true}
  state: {description: Whether to hold or to free it., type: str, choices: [held, free], required: true}
  holder: {description: "Who asks: id of the run, who, since and more. The action gives it.", type: dict, default: {}}
  instead: {description: Id of the run whose lock is taken over because it has ended. The action gives it., type: str, default: ""}
  lease: {description: "Minutes after which a lock counts as left behind, also where nobody can tell.", type: int, default: 120}
author: [Groundcrew]
"""
RETURN = r"""
holder: {description: "Who holds the lock; nobody where it is free.", returned: always, type: dict}
mine: {description: Whether it is the one who asked., returned: always, type: bool}
"""

import json
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.app_releases import alone
from ansible.module_utils.basic import AnsibleModule


def holder_of(lock: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(lock.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        return {"id": "", "who": "nobody known", "at": 0}
    return found


def hold(lock: Path, holder: dict[str, Any], instead: str, lease: int) -> dict[str, Any]:
    """Who holds the lock afterwards."""
    lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with alone(lock.parent):
        there = holder_of(lock)
        if there and there["id"] not in {instead, holder["id"]} and time.time() - there["at"] <= lease * 60:
            return there
        # A run asks before each of its moves, and has held the lock since the first
        asks = {**holder, **there} if there.get("id") == holder["id"] else holder
        part = lock.with_name(f"{lock.name}.part")
        part.write_text(json.dumps({**asks, "at": time.time()}), encoding="utf-8")
        part.replace(lock)
        return asks


def free(lock: Path, run: str) -> dict[str, Any]:
    with alone(lock.parent):
        there = holder_of(lock)
        if there.get("id") != run:
            return there
        lock.unlink()
        return {}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "file": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["held", "free"], "required": True},
            "holder": {"type": "dict", "default": {}},
            "instead": {"type": "str", "default": ""},
            "lease": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    given = module.params
    lock, run = Path(given["file"]), str(given["holder"].get("id", ""))
    if module.check_mode:
        found = holder_of(lock)
        module.exit_json(changed=False, holder=found, mine=not found or found.get("id") == run)
    try:
        found = hold(lock, given["holder"], given["instead"], given["lease"]) if given["state"] == "held" else free(lock, run)
    except OSError as error:
        module.fail_json(msg=f"{lock}: {error}")
    module.exit_json(changed=False, holder=found, mine=not found or found.get("id") == run)


if __name__ == "__main__":
    main()
