"""Bring an environment's vault one step further in a rotation of its secrets.

    - name: Make new values, beside those that are in use
      vault_rotation:
        file: /repository/inventories/staging/group_vars/all/vault.yml
        to: begun

Each step is written before anything is changed by it, and a rotation that was begun goes on with the values that it has made, so a run may
be killed at any moment. The vault is read and written with the password that the run was given, from wherever that came: plain text stays
in this process. On the disk there is either the file before or the one after, both encrypted.

The entries, one a line, beside the secrets themselves:

    vault_login: 1                  # which of two logins database, broker and cache give the application
    vault_generation: 1             # how many rotations there were: hosts refuse a vault from before the last one
    vault_rotation: {"step": "begun", "former": {...}}         # how far it is, and the secrets of the other login while they are good
    vault_app_secret_key_fallbacks: [...]                      # keys whose signatures count beside that of vault_app_secret_key
"""

from __future__ import annotations

import json
import os
import re
import secrets
import typing as t
from pathlib import Path

import yaml
from ansible import context
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.parsing.vault import VaultLib, parse_vaulttext_envelope
from ansible.plugins.action import ActionBase

# Those of the login, by their names in `former`
SERVICES = {"postgresql": "vault_postgresql_app_password", "broker": "vault_redis_broker_password", "cache": "vault_redis_cache_password"}
KEY, FALLBACKS = "vault_app_secret_key", "vault_app_secret_key_fallbacks"
LOGIN, GENERATION, ROTATION = "vault_login", "vault_generation", "vault_rotation"
# What a rotation goes through; with "" none is under way
STEPS = ["", "begun", "signing", "retired"]

Content = dict[str, t.Any]


class RotationError(Exception):
    """The vault cannot take this step."""


def parsed(text: str) -> Content:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        # Not the error's own words, which show the line
        mark = getattr(error, "problem_mark", None)
        where = f" near line {mark.line + 1}" if mark else ""
        raise RotationError(f"it is no plain YAML{where}; a value by itself must not be encrypted again") from None
    if not isinstance(content, dict):
        raise RotationError("it has no entries")
    return content


def changes(content: Content, to: str) -> Content:
    """The entries that change, none where the rotation is as far already."""
    step = (content.get(ROTATION) or {}).get("step", "")
    if step not in STEPS:
        raise RotationError(f"{ROTATION} names a step that is not known; known are {', '.join(STEPS[1:])}")
    if to == "forgotten":
        if step:
            raise RotationError("a rotation is under way: run playbooks/rotate_secrets.yml to its end first")
        return {FALLBACKS: []} if content.get(FALLBACKS) else {}
    if to == "ended":
        if step in {"begun", "signing"}:
            raise RotationError(f"the rotation is at {step}, before it may end")
        return {ROTATION: {}} if step else {}
    if to == "begun" and not step:
        return begun(content)
    if STEPS.index(step) >= STEPS.index(to):
        return {}
    if STEPS.index(step) < STEPS.index(to) - 1:
        raise RotationError(f"the rotation is at {step or 'no step'}, too early for {to}: run the playbook from its begin")
    if to == "retired":
        return {ROTATION: {"step": to}}
    new: Content = {ROTATION: {**content[ROTATION], "step": to}}
    if content.get(FALLBACKS):
        # Every server knows the new key by now
        new |= {KEY: content[FALLBACKS][0], FALLBACKS: [content[KEY]]}
    return new


def begun(content: Content) -> Content:
    """New values for the other login, those before beside them; and a new key for sessions, which signs nothing yet."""
    there = {short: name for short, name in SERVICES.items() if name in content}
    if there and (missing := [name for short, name in SERVICES.items() if short not in there]):
        raise RotationError(f"it has no {' and no '.join(missing)}: one login is for all of them, so put all into this file")
    if not there and KEY not in content:
        raise RotationError(f"it has none of {', '.join([*SERVICES.values(), KEY])}")
    if odd := [name for name in [*there.values(), KEY] if not isinstance(content.get(name, ""), str) or "{{" in content.get(name, "")]:
        raise RotationError(f"{', '.join(odd)} is no plain value")
    new: Content = {name: secrets.token_urlsafe(32) for name in there.values()}
    if there:
        new |= {LOGIN: 1 - int(content.get(LOGIN) or 0), GENERATION: int(content.get(GENERATION) or 0) + 1}
    if KEY in content:
        new[FALLBACKS] = [secrets.token_urlsafe(32)]
    new[ROTATION] = {"step": "begun", "former": {short: content[name] for short, name in there.items()}}
    return new


def written(text: str, new: Content) -> str:
    """The vault's text with these entries, all else as it stands there."""
    wanted = parsed(text) | new
    for name, value in new.items():
        line = f"{name}: {json.dumps(value)}\n"
        # An entry goes on in the lines after it that are indented
        entry = re.compile(rf"^{re.escape(name)}[ \t]*:.*\n?(?:[ \t]+\S.*\n?)*", re.MULTILINE)
        start, end = found.span() if (found := entry.search(text)) else (len(text), len(text))
        text = text[:start] + ("" if found or text.endswith("\n") else "\n") + line + text[end:]
    if parsed(text) != wanted:
        raise RotationError("its entries cannot be told apart: write each on a line of its own, as `name: value`")
    return text


def replace(path: Path, content: bytes) -> None:
    """At every moment the file is the one before or the one after, also on the disk."""
    path = path.resolve()
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), path.stat().st_mode & 0o777)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def advance(vault: VaultLib, path: Path, to: str, check: bool) -> bool:
    """Take a step; whether it was still to be taken."""
    if not path.is_file():
        raise RotationError("it is not there: make secrets ENV=... makes one")
    encrypted = path.read_bytes()
    if not VaultLib.is_encrypted(encrypted):
        raise RotationError("it is not encrypted as a whole: ansible-vault encrypt does that")
    _, _, _, label = parse_vaulttext_envelope(encrypted)
    plain, _, secret = vault.decrypt_and_get_vault_id(encrypted)
    content = parsed(plain.decode())
    # A check run has not taken the steps before
    new = {} if check and to not in {"begun", "forgotten"} else changes(content, to)
    if new and not check:
        replace(path, vault.encrypt(written(plain.decode(), new), secret, None if label == "default" else label))
    return bool(new)


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible ships no types
    """The task `vault_rotation`."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("file", "to"))

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        if context.CLIARGS.get("start_at_task"):
            raise AnsibleActionFail("a rotation begins with its checks: run the playbook without --start-at-task")
        path, to = str(self._task.args["file"]), str(self._task.args["to"])
        if to not in {*STEPS[1:], "ended", "forgotten"}:
            raise AnsibleActionFail(f"there is no step {to}")
        try:
            # The loader has the run's passwords, and no public way to encrypt with them
            result["changed"] = advance(self._loader._vault, Path(path), to, self._task.check_mode)
        except (RotationError, OSError, AnsibleError) as error:
            raise AnsibleActionFail(f"{path} is left as it is: {error}") from None
        return result
