"""The releases on a host: the links that name some of them, which are marked bad, and in which order they were deployed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import syslog
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path


class ReleaseError(Exception):
    """What went wrong, said for the operator."""


@contextlib.contextmanager
def alone(home: Path) -> Iterator[None]:
    """One step at a time in a folder, such as an application's: a run that is killed leaves its last one at work on the host, while the lock of the
    environment is free already."""
    if not home.is_dir():
        # A check run before the first release
        yield
        return
    folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def target(link: Path) -> str:
    """The name that a link ends with, or nothing."""
    return os.path.basename(os.readlink(link)) if link.is_symlink() else ""


def swap(link: Path, to: str | Path) -> None:
    """Point a link elsewhere by a rename: at every moment it is the old or the new one."""
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(to)
    temporary.replace(link)


def is_bad(release: Path) -> bool:
    return (release / "bad").exists()


def mark_bad(release: Path, reason: str) -> None:
    """Leave the reason in the folder of a release that failed, whose time still says when it was deployed."""
    times = release.stat()
    with (release / "bad").open("a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {reason.strip()}\n")
    os.utime(release, ns=(times.st_atime_ns, times.st_mtime_ns))


def clear_bad(release: Path) -> None:
    """It is tried again."""
    times = release.stat()
    (release / "bad").unlink(missing_ok=True)
    os.utime(release, ns=(times.st_atime_ns, times.st_mtime_ns))


def releases(root: Path) -> list[Path]:
    """The complete releases, the one deployed last first. Going back to one does not deploy it."""
    if not (root / "releases").is_dir():
        return []
    found = [path for path in (root / "releases").iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def previous_good(root: Path, release: str) -> str:
    """The release deployed before this one that is not marked bad: each time one goes back, one goes further back."""
    names = [path.name for path in releases(root)]
    older = releases(root)[names.index(release) + 1 :] if release in names else []
    return next((path.name for path in older if not is_bad(path)), "")


def select(root: Path, release: str) -> None:
    """Make a release the current one, and the good one before it the previous one."""
    swap(root / "current", Path("releases", release))
    before = previous_good(root, release)
    if before:
        swap(root / "previous", Path("releases", before))
    else:
        (root / "previous").unlink(missing_ok=True)


def serving(root: Path) -> set[str]:
    """The releases that the live slots of its services run."""
    return {name for live in root.glob("*/live") if live.is_symlink() and (name := target(live.parent / target(live) / "release"))}


def in_use(root: Path) -> set[str]:
    """The releases that a link names or a slot is pinned to."""
    links: Iterable[Path] = [root / "current", root / "previous", *root.glob("*/*/release")]
    return {name for link in links if (name := target(link))}


def last_audited(file: Path) -> str:
    """The release that was last written down as good."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return ""
    for line in reversed(lines):
        # A host that lost its power may have left half a line
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if entry.get("result") == "ok":
                return str(entry.get("to", ""))
    return ""


def audit(file: Path, name: str, entry: Mapping[str, object]) -> str:
    """Write a line of JSON to a file that is only ever added to, and to the journal."""
    line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **entry}, ensure_ascii=False)
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640), "a", encoding="utf-8") as log:
        log.write(f"{line}\n")
        log.flush()
        os.fsync(log.fileno())
    syslog.openlog(f"{name}-release")
    syslog.syslog(syslog.LOG_INFO, line)
    return line
