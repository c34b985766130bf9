#!/usr/bin/python3 -I
"""Restart this host when its updates ask for it and its slot is now; say why, or why not. With --why, say whether they ask for it, no more."""

from __future__ import annotations

import datetime
import fcntl
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

WEEK = 7 * 24 * 60


def seconds_left(minute: int, minutes: int) -> float:
    """The seconds for which a restart may still begin; none outside of the slot."""
    now = datetime.datetime.now(datetime.UTC)
    since = ((now.weekday() * 24 + now.hour) * 60 + now.minute - minute) % WEEK
    return max(0.0, (minutes - since) * 60 - now.second)


def newest_kernel() -> str | None:
    """The release of the newest kernel that is installed, by Debian's order of versions."""
    newest = None
    for image in Path("/boot").glob("vmlinuz-*"):
        release = image.name.removeprefix("vmlinuz-")
        if newest is None or subprocess.run(["dpkg", "--compare-versions", release, "gt", newest], check=False).returncode == 0:
            newest = release
    return newest


def reason(kernel: bool) -> str | None:
    """Why the host should restart."""
    if Path("/run/reboot-required").exists():
        packages = Path("/run/reboot-required.pkgs")
        names = sorted(set(packages.read_text(encoding="utf-8").split())) if packages.exists() else []
        return f"its updates ask for it ({', '.join(names) or 'no package named'})"
    newest, running = newest_kernel(), os.uname().release
    if kernel and newest and newest != running and Path(f"/boot/vmlinuz-{running}").exists():
        return f"the kernel {newest} is installed, and {running} runs"
    return None


def main() -> int:
    if sys.argv[1:] == ["--why"]:
        print(reason(kernel=True) or "")
        return 0
    settings = tomllib.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    slot = settings["minute"], settings["minutes"]
    why = reason(settings["kernel"])
    if not why:
        print("No restart: nothing asks for one")
        return 0
    if not seconds_left(*slot):
        print(f"No restart, though {why}: the host's slot is not now")
        return 0
    # Held until the host is down, so that no upgrade is cut off, and none begins
    with open("/var/lib/dpkg/lock-frontend", "w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"No restart, though {why}: packages are being installed")
            return 1
        for command in settings["before"]:
            print(f"Before the restart: {command}", flush=True)
            limit = f"--property=RuntimeMaxSec={max(1, int(seconds_left(*slot)))}"
            done = subprocess.run(["systemd-run", "--quiet", "--wait", "--collect", limit, "/bin/sh", "-c", command], check=False)
            if done.returncode:
                print(f"No restart, though {why}: that command failed ({done.returncode})")
                return 1
        if not seconds_left(*slot):
            print(f"No restart, though {why}: the host's slot has ended meanwhile")
            return 1
        print(f"Restart: {why}", flush=True)
        subprocess.run(["systemctl", "reboot"], check=True)
        # systemd ends this unit on the way down, after whatever delays it (logind's inhibitors, 30 seconds with unattended-upgrades)
        time.sleep(180)
        print("The restart did not come: systemd was asked for it 3 minutes ago")
        return 1


if __name__ == "__main__":
    sys.exit(main())
