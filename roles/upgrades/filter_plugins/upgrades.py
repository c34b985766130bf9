"""Filters of the role upgrades: which slot of a window is a host's, and what is wrong with windows."""

from __future__ import annotations

import re
import typing as t

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY = 24 * 60
WEEK = 7 * DAY
CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")

Rule = dict[str, str]
Window = t.Mapping[str, t.Any]


def opens(window: Window) -> list[int]:
    """The minutes of the week, from Monday at 0:00 on, at which the window opens."""
    clock = CLOCK.fullmatch(str(window["start"]))
    assert clock
    return sorted(DAYS.index(day) * DAY + int(clock[1]) * 60 + int(clock[2]) for day in set(window["days"]))


def upgrades_slots(window: Window, minutes: int) -> list[int]:
    """The minutes of the week at which the window's slots begin."""
    return [start + slot * minutes for start in opens(window) for slot in range(int(window["minutes"]) // minutes)]


def upgrades_slot(window: Window, minutes: int, position: int) -> dict[str, str | int]:
    """A host's slot: the day and the time at which it begins, and the same as a minute of the week."""
    minute = upgrades_slots(window, minutes)[position] % WEEK
    return {"day": DAYS[minute // DAY].capitalize(), "start": f"{minute % DAY // 60:02}:{minute % 60:02}", "minute": minute}


def overlap(one: Window, other: Window) -> bool:
    """Whether both windows are open at some time of the week."""
    return any(
        (second - first) % WEEK < int(one["minutes"]) or (first - second) % WEEK < int(other["minutes"])
        for first in opens(one)
        for second in opens(other)
    )


def shown(window: Window) -> str:
    return f"{', '.join(window['days'])} from {window['start']}, {window['minutes']} minutes"


def upgrades_rules(window: Window, minutes: int, position: int, hosts: int, others: list[Window]) -> list[Rule]:
    """Rules for role_variables that the windows break."""
    found: list[tuple[str, t.Any, str]] = []
    for name, one in [("upgrades_window", window), *((f"upgrades_other_windows[{n}]", other) for n, other in enumerate(others))]:
        if not one["days"]:
            found.append((f"{name}.days", "[]", "at least one day of the week"))
        if not CLOCK.fullmatch(str(one["start"])):
            found.append((f"{name}.start", one["start"], "a time such as 03:00, in quotes"))
        if not 10 <= int(one["minutes"]) <= DAY:
            found.append((f"{name}.minutes", one["minutes"], "10 to 1440 (minutes)"))
    if not found and 4 <= minutes <= 240:
        slots = len(upgrades_slots(window, minutes))
        if slots < hosts:
            what = f"{slots} slots of {minutes} minutes ({shown(window)})"
            found.append(("upgrades_window", what, f"a slot for each of the {hosts} hosts that share it: a longer window or more days"))
        elif not 0 <= position < slots:
            found.append(("upgrades_position", position, f"0 to {slots - 1}, the slots of the window"))
        starts = opens(window)
        gaps = [(later - earlier) % WEEK for earlier, later in zip(starts, [*starts[1:], starts[0]], strict=True)]
        if len(starts) > 1 and min(gaps) < int(window["minutes"]):
            found.append(("upgrades_window.minutes", window["minutes"], "a window that is closed before it opens the next time"))
        for other in others:
            if overlap(window, other):
                allowed = f"a window apart from the one of hosts that belong to a tier of this one ({shown(other)})"
                found.append(("upgrades_window", shown(window), allowed))
    return [{"variable": variable, "that": "false", "value": repr(str(value)), "allowed": allowed} for variable, value, allowed in found]


class FilterModule:
    """The filters of the role upgrades."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"upgrades_rules": upgrades_rules, "upgrades_slot": upgrades_slot}
