#!/usr/bin/python
"""One release at a time: a lock that stands on a host of the environment, with who holds it and since when."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_lock
short_description: Hold the lock of an environment, or free it
description:
  - The lock is a file that appears at once and whole, so of two runs one gets it, from whichever controllers they come.
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

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

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
    part = lock.with_name(f"{lock.name}.{holder['id']}")
    there = holder_of(lock)
    # A run asks before each of its moves, and has held the lock since the first
    asks = {**holder, **there} if there.get("id") == holder["id"] else holder
    part.write_text(json.dumps({**asks, "at": time.time()}), encoding="utf-8")
    try:
        if there and (there["id"] in {instead, holder["id"]} or time.time() - there["at"] > lease * 60):
            with contextlib.suppress(FileNotFoundError):
                lock.rename(f"{part}.old")
                # Of two runs that take over the same lock, the later one must not take the new lock of the other
                if holder_of(Path(f"{part}.old")).get("id") != there["id"]:
                    with contextlib.suppress(FileExistsError):
                        os.link(f"{part}.old", lock)
        with contextlib.suppress(FileExistsError):
            os.link(part, lock)
    finally:
        part.unlink()
        Path(f"{part}.old").unlink(missing_ok=True)
    return holder_of(lock)


def free(lock: Path, run: str) -> dict[str, Any]:
    there = holder_of(lock)
    if there.get("id") == run:
        lock.unlink()
        return {}
    return there


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
