"""Who is taken for a primary, by what the members of a set answer."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.redis_wire import RedisError

from plugins.modules.redis_set import Members, settled

ADDRESSES = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


class Answers(Members):
    """Members that say what they are told to: a dict of (address, port) to an answer; all others are silent."""

    said: dict[tuple[str, int], Any]

    def ask(self, address: str, port: int, *words: str) -> Any:
        if (address, port) not in self.said:
            raise ConnectionRefusedError
        return self.said[address, port]


def members(said: dict[tuple[str, int], Any]) -> Answers:
    made = Answers("10.0.0.1", ADDRESSES, 26379, "sentinel", "password", "/ca.pem")
    object.__setattr__(made, "said", said)
    return made


def test_most_sentinels_are_believed() -> None:
    """Catches the word of one that was away, and so does not know of the last failover."""
    said = {(address, 26379): [primary, "6379"] for address, primary in zip(ADDRESSES, ["10.0.0.1", "10.0.0.3", "10.0.0.3"], strict=True)}
    assert members(said).primary("broker", 6379) == "10.0.0.3"


def test_without_a_sentinel_the_instances_are_asked() -> None:
    """Catches a member that begins empty as the primary of others that have data."""
    assert members({("10.0.0.2", 6379): ["slave", "10.0.0.3", 6379, "connect", 5]}).primary("broker", 6379) == "10.0.0.3"
    assert members({("10.0.0.2", 6379): ["master", 5, []]}).primary("broker", 6379) == "10.0.0.2"
    assert members({}).primary("broker", 6379) == ""


def test_two_that_take_writes_are_no_set() -> None:
    """Catches a choice between the data of two, which loses that of one."""
    with pytest.raises(RedisError, match=r"10\.0\.0\.1 and 10\.0\.0\.2 each take writes of broker: stop all but the one"):
        members({(address, 6379): ["master", 5, []] for address in ADDRESSES[:2]}).primary("broker", 6379)


@pytest.mark.parametrize(
    ("role", "is_settled"),
    [
        (["master", 5, []], False),
        (["master", 5, [["10.0.0.2", "6379", "5"]]], True),
        (["slave", "10.0.0.2", 6379, "sync", 5], False),
        (["slave", "10.0.0.2", 6379, "connected", 5], True),
    ],
)
def test_a_member_is_settled_once_it_follows_or_is_followed(role: list[Any], is_settled: bool) -> None:
    """Catches a next member that restarts while this one has nothing yet."""
    assert settled(members({("10.0.0.1", 6379): role}), 6379) is is_settled
