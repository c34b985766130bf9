"""Who is taken for a primary, by what the members of a set answer."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.redis_wire import RedisError

from plugins.modules.redis_set import Members, recount, settled

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


class Asked(Members):
    """Members whose Sentinels answer by the words of the question."""

    said: dict[tuple[str, ...], Any]
    told: list[tuple[str, ...]]

    def ask(self, address: str, port: int, *words: str) -> Any:
        self.told.append((address, *words))
        if (address, *words) not in self.said and words[1] != "SET":
            raise ConnectionRefusedError
        return self.said.get((address, *words))


def asked(said: dict[tuple[str, ...], Any]) -> Asked:
    made = Asked("10.0.0.1", ADDRESSES, 26379, "sentinel", "password", "/ca.pem")
    object.__setattr__(made, "said", said)
    object.__setattr__(made, "told", [])
    return made


def one(address: str, flags: str) -> list[str]:
    return ["name", "x", "ip", address, "port", "6379", "flags", flags]


def test_who_takes_part_and_is_not_named_is_a_stranger() -> None:
    """Catches a member out of the inventory that goes on to vote, and one that is gone and would keep a run from healing what is left."""
    said: dict[tuple[str, ...], Any] = {
        ("10.0.0.2", "SENTINEL", "SENTINELS", "broker"): [
            one("10.0.0.1", "sentinel"),
            one("10.0.0.4", "sentinel"),
            one("10.0.0.5", "s_down,sentinel"),
        ],
        ("10.0.0.3", "SENTINEL", "REPLICAS", "broker"): [one("10.0.0.6", "slave"), one("10.0.0.7", "s_down,slave,disconnected")],
    }
    assert asked(said).strangers("broker") == {"10.0.0.4", "10.0.0.6"}
    assert asked(said | {("10.0.0.3", "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "broker"): ["10.0.0.8", "6379"]}).strangers("broker") == {
        *("10.0.0.4", "10.0.0.6", "10.0.0.8"),
    }
    assert asked({}).strangers("broker") == set()


@pytest.mark.parametrize(("quorum", "told"), [("3", True), ("2", False), (None, False)])
@pytest.mark.parametrize("check_mode", [False, True])
def test_a_set_of_another_size_is_recounted(quorum: str | None, told: bool, check_mode: bool) -> None:
    """Catches three of five members that still have to agree once only three are left, and two that decide over five."""
    said: dict[tuple[str, ...], Any] = (
        {("10.0.0.1", "SENTINEL", "MASTER", "broker"): ["name", "broker", "quorum", quorum]} if quorum else {}
    )
    members = asked(said)
    assert recount(members, "broker", check_mode) is told
    setting = ("10.0.0.1", "SENTINEL", "SET", "broker", "quorum", "2")
    assert (setting in members.told) is (told and not check_mode)


@pytest.mark.parametrize(
    ("sentinels", "replicas", "found"),
    [
        (["10.0.0.2", "10.0.0.3"], ["10.0.0.2", "10.0.0.3"], False),
        (["10.0.0.2"], [], False),
        (["10.0.0.2", "10.0.0.3", "10.0.0.3"], ["10.0.0.2"], True),
        (["10.0.0.2", "10.0.0.9"], ["10.0.0.2"], True),
        (["10.0.0.2", "10.0.0.3"], ["10.0.0.2", "10.0.0.9"], True),
    ],
)
def test_a_sentinel_that_counts_who_is_not_there_is_told(sentinels: list[str], replicas: list[str], found: bool) -> None:
    """Catches a member that has gone with its address, and would count as one that is away for ever."""
    said: dict[tuple[str, ...], Any] = {
        ("10.0.0.1", "SENTINEL", "SENTINELS", "broker"): [one(address, "sentinel") for address in sentinels],
        ("10.0.0.1", "SENTINEL", "REPLICAS", "broker"): [one(address, "s_down,slave") for address in replicas],
    }
    assert asked(said).miscounted("broker") is found


def test_the_next_sentinel_forgets_once_this_one_knows_the_others() -> None:
    """Catches two Sentinels that know nobody at the same time."""
    said: dict[tuple[str, ...], Any] = {
        ("10.0.0.2", "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "broker"): ["10.0.0.1", "6379"],
        ("10.0.0.1", "SENTINEL", "SENTINELS", "broker"): [],
    }
    assert not asked(said).knows_all("broker")
    assert asked(said | {("10.0.0.1", "SENTINEL", "SENTINELS", "broker"): [one("10.0.0.2", "sentinel")]}).knows_all("broker")
