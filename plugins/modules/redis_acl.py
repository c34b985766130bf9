#!/usr/bin/python
"""Have a running Redis instance know the users of its ACL file, with no restart, and no connection of the others cut."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_acl
short_description: Apply the ACL file of a Redis instance that runs
description:
  - Sets each user of the file anew, each in one step, and removes those that are not in it, which ends their connections. Connections of
    users who stay are kept, also where a password changes. ACL LOAD would cut all of them, and so would a restart.
  - An instance that has not read yet who may set users has to be restarted to read its file.
options:
  address: {description: An address that the instance listens on., type: str, required: true}
  port: {description: Its TCP port., type: int, required: true}
  file: {description: Its ACL file., type: path, required: true}
  user: {description: "The user who may set users, and no more.", type: str, required: true}
  key: {description: File with that user's password., type: path, required: true}
  ca_file: {description: "PEM file of the authority of its certificate, where it speaks TLS.", type: str, default: ""}
attributes:
  check_mode:
    support: full
    description: Compares names and passwords, not rules.
author: [Groundcrew]
"""
RETURN = r"""
changed: {description: Whether the instance has other users than before, or is stale., returned: always, type: bool}
stale: {description: Whether it does not know yet who may set users., returned: success, type: bool}
"""

import re
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.redis_wire import Redis, RedisError


def users(lines: list[str]) -> dict[str, list[str]]:
    """The rules of each user, from an ACL file or from ACL LIST."""
    return {words[1]: words[2:] for words in map(str.split, lines) if words[:1] == ["user"]}


def hashes(found: dict[str, list[str]]) -> dict[str, list[str]]:
    """Names, and who may log in how: what can be compared without Redis' own way to write rules."""
    return {name: sorted(rule for rule in rules if re.fullmatch(r"on|off|nopass|#[0-9a-f]{64}", rule)) for name, rules in found.items()}


def apply(redis: Redis, wanted: dict[str, list[str]], check: bool) -> bool:
    """Give an instance its users; whether it had others."""
    before = redis.ask("ACL", "LIST")
    if check:
        return hashes(users(before)) != hashes(wanted)
    for name, rules in wanted.items():
        redis.ask("ACL", "SETUSER", name, "reset", *rules)
    for name in users(before).keys() - wanted.keys():
        redis.ask("ACL", "DELUSER", name)
    return bool(sorted(redis.ask("ACL", "LIST")) != sorted(before))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
            "file": {"type": "path", "required": True},
            "user": {"type": "str", "required": True},
            # The name of a file, no secret
            "key": {"type": "path", "required": True, "no_log": False},
            "ca_file": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        redis = Redis(given["address"], given["port"], given["ca_file"])
        redis.ask("AUTH", given["user"], Path(given["key"]).read_text(encoding="ascii"))
    except (OSError, RedisError) as error:
        # It has not read its file since it was started; and a check run may not have started it
        if module.check_mode or re.match("WRONGPASS|NOPERM|NOAUTH", str(error)):
            module.exit_json(changed=True, stale=True)
        module.fail_json(msg=f"The instance at {given['address']}:{given['port']} cannot be asked: {error}")
    try:
        wanted = users(Path(given["file"]).read_text(encoding="utf-8").splitlines())
        module.exit_json(changed=apply(redis, wanted, module.check_mode), stale=False)
    except (OSError, RedisError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
