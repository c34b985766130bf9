#!/usr/bin/python
"""What runs on a host, as a table for people: releases, slots, their answers, units and certificates."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_status
short_description: Say what runs on a host
description: Reads links, systemd and certificates, asks the live slot, and changes nothing.
options:
  name: {description: "The application's name, with which its units begin.", type: str, required: true}
  root: {description: "Folder of the application, like /srv/textreport.", type: path, required: true}
  host: {description: The name that the table begins with., type: str, default: ""}
  path: {description: Path that answers 200 while a slot is healthy., type: str, default: /healthz}
  site: {description: Host name in that request., type: str, default: localhost}
  celery: {description: "What Celery loads, to count the tasks that are kept for another release; empty: not counted.", type: str, default: ""}
  units: {description: Other units to tell of; those that are not there are left out., type: list, elements: str, default: []}
  certificates: {description: Certificates whose end to tell; those that are not there are left out., type: list, elements: path, default: []}
  certificate_days: {description: "Days before its end, at most a quarter of its life, from which on a certificate is warned of.", type: int, default: 14}
  maintenance: {description: Folder with a file for each site that is closed; empty for none., type: str, default: ""}
attributes:
  check_mode: {support: full}
author: [Groundcrew]
"""
RETURN = r"""
table: {description: The table., returned: always, type: str}
"""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ansible.module_utils.app_releases import is_bad, releases, target
from ansible.module_utils.app_slots import ask
from ansible.module_utils.basic import AnsibleModule

Row = tuple[str, str]


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}).stdout


def ago(seconds: float) -> str:
    for size, word in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {word}"
    return f"{seconds:.0f} s"


def release_rows(root: Path) -> Iterator[Row]:
    current = target(root / "current")
    for number, path in enumerate(releases(root)):
        said = [f"last changed {ago(time.time() - path.stat().st_mtime)} ago"]
        if path.name == current:
            said.insert(0, "current")
        if path.name == target(root / "previous"):
            said.insert(0, "previous")
        if is_bad(path):
            said.append(f"bad: {(path / 'bad').read_text(encoding='utf-8').strip().splitlines()[-1]}")
        yield "" if number else "releases", f"{path.name}  {', '.join(said)}"


def slot_rows(name: str, root: Path, path: str, site: str) -> Iterator[Row]:
    for service in ("web", "worker"):
        live = target(root / service / "live")
        for number, slot in enumerate(("blue", "green")):
            folder = root / service / slot
            try:
                pinned = json.loads((folder / "pinned.json").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            units = [unit.replace("@.", f"@{slot}.") for unit in pinned["units"]]
            states = sorted(set(output("systemctl", "show", "--property=ActiveState", "--value", "--", *units).split())) if units else []
            said = f"{slot:<6}{'live' if slot == live else 'idle':<6}{target(folder / 'release')}  {', '.join(states)}"
            if slot == live and (folder / "run").is_symlink():
                status, text = ask(f"{folder}/run/web.sock", path, site, 5)
                said += f", {path} {status if status else text}"
            yield service if not number else "", f"{said}, filled {ago(time.time() - pinned['since'])} ago"


def task_rows(name: str, root: Path, celery: str) -> Iterator[Row]:
    release = root / "worker/live/release"
    if celery and release.exists():
        # As the application's user and with its environment, by the drop-ins for the units of its name
        unit = ["--wait", "--pipe", "--collect", "--quiet", "--property=RuntimeMaxSec=30", f"--unit={name}-kept-{os.getpid()}"]
        program = [f"{release}/venv/bin/python", "-P", "/usr/local/lib/groundcrew-celery.py", "count", celery]
        kept = output("systemd-run", *unit, "/usr/bin/env", f"--chdir={release}/src", *program).strip()
        yield "tasks", f"{kept if kept.isdigit() else 'unknown how many'} kept for another release"


def unit_rows(name: str, units: list[str]) -> Iterator[Row]:
    listed = output("systemctl", "list-units", "--all", "--plain", "--no-legend", "--", f"{name}-*.service", *units)
    number = 0
    for line in listed.splitlines():
        words = line.split()
        # An idle slot is told of above
        if len(words) > 3 and words[2] != "inactive":
            yield "" if number else "units", f"{words[0]}  {words[2]} ({words[3]})"
            number += 1


def maintenance_rows(folder: str) -> Iterator[Row]:
    for path in sorted(Path(folder).glob("*")) if folder else []:
        yield "maintenance", f"{path.name} is closed for {ago(time.time() - path.stat().st_mtime)}"


def certificate_rows(certificates: list[str], days: int) -> Iterator[Row]:
    for path in certificates:
        dates = [line.partition("=")[2] for line in output("openssl", "x509", "-noout", "-startdate", "-enddate", "-in", path).splitlines()]
        if len(dates) == 2:
            begins, ends = (datetime.strptime(date, "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC) for date in dates)
            left = ends - datetime.now(UTC)
            said = f"{path}  ends {ends:%Y-%m-%d}, in {left.days} days"
            yield "certificate", said + (", WARNING: soon" if left < min(timedelta(days=days), (ends - begins) / 4) else "")
        # What renews it writes there what is wrong (role tls)
        with contextlib.suppress(OSError):
            yield "", f"WARNING: {Path(path).with_name('problem').read_text(encoding='utf-8').strip()}"


def table(host: str, rows: list[Row]) -> str:
    width = max([len(name) for name, _ in rows], default=0)
    return "\n".join([host, *(f"  {name:<{width}}  {said}" for name, said in rows)])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "host": {"type": "str", "default": ""},
            "path": {"type": "str", "default": "/healthz"},
            "site": {"type": "str", "default": "localhost"},
            "celery": {"type": "str", "default": ""},
            "units": {"type": "list", "elements": "str", "default": []},
            "certificates": {"type": "list", "elements": "path", "default": []},
            "certificate_days": {"type": "int", "default": 14},
            "maintenance": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given = module.params
    root = Path(given["root"])
    rows = [
        *maintenance_rows(given["maintenance"]),
        *slot_rows(given["name"], root, given["path"], given["site"]),
        *release_rows(root),
        *task_rows(given["name"], root, given["celery"]),
        *unit_rows(given["name"], given["units"]),
        *certificate_rows(given["certificates"], given["certificate_days"]),
    ]
    module.exit_json(changed=False, table=table(given["host"], rows))


if __name__ == "__main__":
    main()
