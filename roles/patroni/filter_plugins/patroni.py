"""What `patronictl list -f json` says, read: who leads, and what a cluster lacks before one of its members may be away."""

from __future__ import annotations

import json
import typing as t

WELL = ("running", "streaming")


def members(output: str) -> list[dict[str, t.Any]]:
    """The members; none where there is no cluster yet, or no answer."""
    try:
        said = json.loads(output)
    except ValueError:
        return []
    return [one for one in said if isinstance(one, dict)] if isinstance(said, list) else []


def patroni_leader(output: str) -> str:
    """The name of the member that leads and runs, or nothing."""
    return next((str(one["Member"]) for one in members(output) if one["Role"] == "Leader" and one["State"] == "running"), "")


def patroni_well(output: str) -> list[str]:
    """The names of the members that lead or follow."""
    return [str(one["Member"]) for one in members(output) if one["State"] in WELL]


def patroni_begins(output: str, name: str) -> bool:
    """Whether a member copies the leader's data, or starts with what it has copied: minutes or hours, by how much there is."""
    return any(one["Member"] == name and one["State"] in {"creating replica", "starting"} for one in members(output))


def patroni_synchronous_members(output: str) -> list[str]:
    """The names of the members that have each commit of the leader."""
    return [str(one["Member"]) for one in members(output) if one["Role"] == "Sync Standby"]


def patroni_problem(output: str, names: list[str], synchronous: bool) -> str:
    """Why no member may be away now, or nothing."""
    found = {str(one["Member"]): one for one in members(output)}
    leader = patroni_leader(output)
    if not leader:
        return "nobody leads"
    if missing := [name for name in names if name not in found or found[name]["State"] not in WELL]:
        return f"not running or following: {', '.join(missing)}"
    if apart := [name for name in names if found[name]["TL"] != found[leader]["TL"]]:
        return f"not yet on the timeline of {leader}: {', '.join(apart)}"
    if synchronous and not patroni_synchronous_members(output):
        return f"no member has each commit of {leader} yet"
    return ""


class FilterModule:
    """The filters of the role."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {one.__name__: one for one in (patroni_leader, patroni_well, patroni_begins, patroni_synchronous_members, patroni_problem)}
