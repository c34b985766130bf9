"""Refuse variables whose names are nearly those of the fleet's baseline: a misspelled one sets nothing, and nobody is told.

    - name: Refuse misspelled names
      near_names:
        files: [/repository/group_vars/all/environment.yml]    # the names that these set are the right ones
        more: [site_hosts]                                     # and these, which only environments set

Names that begin with a role's, public or private, are left to role_variables, which knows all of a role's; appname, which does not, is compared with them too.
It needs no connection, and runs in check mode.
"""

from __future__ import annotations

import difflib
import os
import typing as t
from collections.abc import Iterable, Mapping

import yaml
from ansible import constants as C
from ansible.plugins.action import ActionBase

try:  # where a value was written; a private interface of ansible-core 2.19, so its absence only shortens the message
    from ansible._internal._datatag._tags import Origin
except ImportError:  # pragma: no cover
    Origin = None

# host_adress and host_address are alike by 0.96, db_address_v6 and db_address by 0.87
ALIKE = 0.9


def misspelled(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """The names that are no known one but nearly one, each with the one that was probably meant."""
    known = sorted(known)
    found = {name: difflib.get_close_matches(name, known, n=1, cutoff=ALIKE) for name in sorted(set(names) - set(known))}
    return {name: meant[0] for name, meant in found.items() if meant}


def place(value: t.Any) -> str:
    """The file and the line where a value was written, as far as they are known."""
    origin = Origin.get_tag(value) if Origin is not None and value is not None else None
    path, line = str(getattr(origin, "path", None) or ""), getattr(origin, "line_num", None)
    if not path:
        return "the inventory"
    inside = os.path.relpath(path)
    return (path if inside.startswith("..") else inside) + (f", line {line}" if line else "")


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible ships no types
    """The task `near_names`."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("files", "more"))

    def run(self, tmp: str | None = None, task_vars: Mapping[str, t.Any] | None = None) -> dict[str, t.Any]:
        task_vars = task_vars or {}
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        roles = tuple(f"{role}_" for folder in C.DEFAULT_ROLES_PATH if os.path.isdir(folder) for role in os.listdir(folder))
        known = set(self._task.args.get("more") or [])
        for path in self._task.args["files"]:
            with open(path, encoding="utf-8") as file:
                known.update(yaml.safe_load(file) or {})
        found = misspelled((name for name in task_vars if not name.removeprefix("__").startswith(roles)), known)
        # No values: one of them holds a password
        lines = [f"{name}\n    allowed: did you mean {meant}?\n    change:  {place(task_vars[name])}" for name, meant in found.items()]
        if lines:
            return {**result, "failed": True, "msg": "\n".join(["Nothing reads these variables:", *lines])}
        return {**result, "changed": False}
