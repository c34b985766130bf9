#!/usr/bin/python
"""Ask a set of Redis instances and their Sentinels who is the primary, and move that from one host to another."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_set
short_description: The primaries of instances that Sentinel watches
description:
  - Asks the Sentinels of all members, else the instances themselves, who the primary of each instance is.
  - With O(state=counted), asks the Sentinels besides who takes part that is not named.
  - With O(state=elsewhere), has Sentinel make another member the primary of those instances whose primary this host is, and waits for it.
  - With O(state=settled), waits until each instance of this host has a replica that follows it, or follows its primary, and has its Sentinel
    want the agreement of more than half of the members.
options:
  address: {description: This host's address among the members., type: str, required: true}
  members: {description: "Addresses of all members, the first primary first.", type: list, elements: str, required: true}
  instances: {description: "Names and ports of the instances.", type: list, elements: dict, required: true}
  sentinel_port: {description: TCP port of the Sentinels., type: int, required: true}
  user: {description: "The user that members have on each other.", type: str, required: true}
  password: {description: That user's password., type: str, required: true}
  ca_file: {description: PEM file of the authority of the members' certificates., type: path, required: true}
  state: {description: "What to do.", type: str, choices: [asked, counted, elsewhere, settled], default: asked}
  seconds: {description: Seconds to wait at most., type: int, default: 60}
attributes:
  check_mode: {support: full}
author: [Groundcrew]
"""
RETURN = r"""
primaries:
  description: The address of each instance's primary, by the instance's name; the first member where no set is there yet.
  returned: success
  type: dict
new:
  description: Names of instances of which no member knows anything yet.
  returned: success
  type: list
others:
  description: Addresses of the other members that answer.
  returned: success
  type: list
strangers:
  description: Addresses that run as members by what the Sentinels know, and that are not among O(members).
  returned: with O(state=counted), else empty
  type: list
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.redis_wire import Redis, RedisError

# Longer than a move takes; the pause ends with it, or with this
PAUSE_MS = 15000


@dataclass(frozen=True)
class Members:
    """All members, as one of them asks them."""

    address: str
    addresses: list[str]
    sentinel_port: int
    user: str
    password: str
    ca_file: str

    def ask(self, address: str, port: int, *words: str) -> Any:
        redis = Redis(address, port, self.ca_file, timeout=3)
        try:
            redis.ask("AUTH", self.user, self.password)
            return redis.ask(*words)
        finally:
            redis.close()

    def answer(self, address: str, port: int, *words: str) -> Any:
        """What a member says, or nothing."""
        try:
            return self.ask(address, port, *words)
        except (OSError, RedisError):
            return None

    def asked(self, port: int, *words: str) -> list[Any]:
        return [self.answer(address, port, *words) for address in self.addresses]

    def primary(self, name: str, port: int) -> str:
        """The address of an instance's primary; empty where no member knows of a set."""
        votes = [str(said[0]) for said in self.asked(self.sentinel_port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", name) if said]
        if votes:
            return max(votes, key=lambda vote: (votes.count(vote), vote == self.addresses[0]))
        roles = dict(zip(self.addresses, self.asked(port, "ROLE"), strict=True))
        serving = [address for address, role in roles.items() if role and role[0] == "master"]
        following = [str(role[1]) for role in roles.values() if role and role[0] == "slave"]
        if len(serving) > 1:
            raise RedisError(
                f"no Sentinel answers, and {' and '.join(serving)} each take writes of {name}: "
                "stop all but the one whose data is to stay (systemctl stop redis-server@NAME), and run again"
            )
        return next(iter(serving or following), "")

    def strangers(self, name: str) -> set[str]:
        """Who takes part in the set besides those that are named. One that is away takes no part, and is forgotten by the next run."""
        found: set[str] = set()
        for kind in ("SENTINELS", "REPLICAS"):
            for said in self.asked(self.sentinel_port, "SENTINEL", kind, name):
                seen = [fields(one) for one in said or []]
                found |= {
                    one.get("ip", "") for one in seen if not {"s_down", "o_down", "disconnected"} & set(one.get("flags", "").split(","))
                }
        for said in self.asked(self.sentinel_port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", name):
            found |= {str(said[0])} if said else set()
        return found - {"", *self.addresses}

    def known(self, kind: str, name: str) -> list[str]:
        """The addresses of the SENTINELS or REPLICAS that this host's Sentinel knows, also of those that are away."""
        return [fields(one).get("ip", "") for one in self.ask(self.address, self.sentinel_port, "SENTINEL", kind, name)]

    def miscounted(self, name: str) -> bool:
        """Whether this host's Sentinel counts somebody twice, who was rebuilt and has another name, or somebody who is no member any more."""
        sentinels = self.known("SENTINELS", name)
        return len(sentinels) >= len(self.addresses) or bool({*sentinels, *self.known("REPLICAS", name)} - {*self.addresses})

    def knows_all(self, name: str) -> bool:
        """Whether this host's Sentinel knows all others that watch the instance."""
        others = [address for address in self.addresses if address != self.address]
        watching = {one for one in others if self.answer(one, self.sentinel_port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)}
        return watching <= {*self.known("SENTINELS", name)}

    def quorum(self, name: str) -> int:
        """How many have to agree, by this host's Sentinel, that a primary is gone; 0 where none answers."""
        return int(fields(self.answer(self.address, self.sentinel_port, "SENTINEL", "MASTER", name) or []).get("quorum", 0))


def fields(said: list[str]) -> dict[str, str]:
    """Names and values, which Sentinel sends as one list."""
    return dict(zip(said[::2], said[1::2], strict=False))


def wait(module: AnsibleModule, what: str, ask: Callable[[], bool]) -> None:
    end, last = time.monotonic() + module.params["seconds"], ""
    while time.monotonic() < end:
        try:
            if ask():
                return
        except (OSError, RedisError) as error:
            last = f": {error}"
        # Between two questions; the bound is above
        time.sleep(0.2)
    module.fail_json(msg=f"{what} did not come within {module.params['seconds']} s{last}")


def settled(members: Members, port: int) -> bool:
    role = members.ask(members.address, port, "ROLE")
    return len(role[2]) > 0 if role[0] == "master" else bool(role[3] == "connected")


def caught_up(members: Members, port: int) -> bool:
    """Whether a replica of this host has all that this host has."""
    role = members.ask(members.address, port, "ROLE")
    return bool(role[0] == "slave" or any(int(replica[2]) >= int(role[1]) for replica in role[2]))


def moved(members: Members, name: str, port: int) -> bool:
    """Ask Sentinel to move the primary, which it refuses for seconds after another move; whether this host follows by now."""
    if members.ask(members.address, port, "ROLE")[0] == "slave":
        return members.primary(name, port) != members.address
    if members.primary(name, port) == members.address:
        members.ask(members.address, members.sentinel_port, "SENTINEL", "FAILOVER", name)
    return False


def hand_over(module: AnsibleModule, members: Members, name: str, port: int) -> None:
    """Move the primary with nothing lost: writes wait until a replica has all of them and has taken over."""
    wait(module, f"a replica of {name} that follows", lambda: settled(members, port))
    try:
        members.ask(members.address, port, "CLIENT", "PAUSE", str(PAUSE_MS), "WRITE")
        wait(module, f"a replica of {name} that has everything", lambda: caught_up(members, port))
        wait(module, f"another primary of {name}", lambda: moved(members, name, port))
    finally:
        members.answer(members.address, port, "CLIENT", "UNPAUSE")


def recount(members: Members, name: str, check_mode: bool) -> bool:
    """Have this host's Sentinel want more than half of the members, whose number it was told once; whether it did not."""
    wanted = len(members.addresses) // 2 + 1
    if members.quorum(name) in (0, wanted):
        return False
    if not check_mode:
        members.ask(members.address, members.sentinel_port, "SENTINEL", "SET", name, "quorum", str(wanted))
    return True


def settle(module: AnsibleModule, members: Members, name: str, port: int) -> None:
    """Wait until this host follows or is followed, and have its Sentinel count nobody twice who is there, and nobody who is not."""
    if members.miscounted(name):
        members.ask(members.address, members.sentinel_port, "SENTINEL", "RESET", name)
        # Before the next host's forgets them: with two that know nobody, nobody would be replaced
        wait(module, f"the other Sentinels of {name} known to {members.address}", lambda: members.knows_all(name))
    wait(module, f"a settled {name} on {members.address}", lambda: settled(members, port))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "required": True},
            "members": {"type": "list", "elements": "str", "required": True},
            "instances": {"type": "list", "elements": "dict", "required": True},
            "sentinel_port": {"type": "int", "required": True},
            "user": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "ca_file": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["asked", "counted", "elsewhere", "settled"], "default": "asked"},
            "seconds": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    given = module.params
    members = Members(*(given[key] for key in ("address", "members", "sentinel_port", "user", "password", "ca_file")))
    ports = {str(one["name"]): int(one["port"]) for one in given["instances"]}
    try:
        found = {name: members.primary(name, port) for name, port in ports.items()}
    except RedisError as error:
        module.fail_json(msg=str(error))
    changed = False
    try:
        for name, port in ports.items():
            if given["state"] == "elsewhere" and found[name] == members.address:
                changed = True
                if not module.check_mode:
                    hand_over(module, members, name, port)
            if given["state"] == "settled":
                changed = recount(members, name, module.check_mode) or changed
            if given["state"] == "settled" and not module.check_mode:
                settle(module, members, name, port)
    except (OSError, RedisError) as error:
        module.fail_json(msg=f"A member of the set does not do its part: {error}")
    others = [
        address
        for address in members.addresses
        if address != members.address and any(members.answer(address, port, "ROLE") for port in ports.values())
    ]
    primaries = {name: address or given["members"][0] for name, address in found.items()}
    module.exit_json(
        changed=changed,
        primaries=primaries,
        new=[name for name, address in found.items() if not address],
        others=others,
        strangers=sorted(set().union(*(members.strangers(name) for name in ports))) if given["state"] == "counted" else [],
    )


if __name__ == "__main__":
    main()
