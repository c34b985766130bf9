#!/usr/bin/python3
"""Gather the entries of the web application firewall, a file each, into one log of bounded size: a JSON object a line, without secrets.

Of a request stay its id, client, method and path (no query), of each rule that matched its number, message and target, with the value
that it matched unless the target's name says that it is secret.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# The log and its predecessors
FILES = 4
# Entries that may wait: of more, those that came first are let go, so that a flood cannot fill the disk
WAITING = 10_000
ENTRY_BYTES = 1024 * 1024
VALUE_LENGTH = 200
# Seconds after which an entry that cannot be read is no longer one that is being written
UNFINISHED = 10
# Of whole addresses and bodies nobody knows what they hold
SECRET = re.compile(
    r"authori[sz]ation|cookie|passw|passphrase|pwd|secret|token|api.?key|session|credential|csrf|otp|\bpin\b|^QUERY_STRING|^REQUEST_(?:BODY|LINE|URI)",
    re.IGNORECASE,
)
TARGET = re.compile(r"against variable [`']([^']*)'")
# What rules write of a match names its target, and all of its value after that
FOUND = re.compile(r" found within ([A-Z_]+(?::[^ :]*)?)")


def finding(message: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a rule that matched."""
    details = message.get("details", {})
    data = details.get("data", "")
    found = TARGET.search(details.get("match", "")) or FOUND.search(data)
    target = found[1] if found else ""
    kept = {"rule": int(details.get("ruleId") or 0), "message": message.get("message", ""), "target": target[:VALUE_LENGTH]}
    if " found within " in data:
        value = data.removeprefix("Matched Data: ").partition(" found within ")[0]
        kept["value"] = "(left out)" if SECRET.search(target) else value[:VALUE_LENGTH]
    return kept


def line(entry: dict[str, Any]) -> bytes:
    """The log's line of an entry."""
    transaction = entry["transaction"]
    request = transaction.get("request", {})
    kept = {
        "time": transaction.get("time_stamp", ""),
        "request_id": transaction.get("unique_id", ""),
        "client": transaction.get("client_ip", ""),
        "method": str(request.get("method", ""))[:VALUE_LENGTH],
        "path": str(request.get("uri", "")).partition("?")[0][:1000],
        "status": transaction.get("response", {}).get("http_code", 0),
        "findings": [finding(message) for message in transaction.get("messages", [])[:50]],
    }
    return json.dumps(kept, ensure_ascii=True).encode() + b"\n"


class Log:
    """A file that makes room by itself: it and its predecessors hold no more than `limit` bytes."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path, self.limit = path, limit // FILES
        self.file = self.open()

    def open(self) -> int:
        return os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o640)

    def write(self, text: bytes) -> None:
        if os.fstat(self.file).st_size + len(text) > self.limit:
            os.close(self.file)
            for number in range(FILES - 1, 0, -1):
                older = self.path.with_name(f"{self.path.name}.{number - 1}") if number > 1 else self.path
                if older.exists():
                    older.replace(self.path.with_name(f"{self.path.name}.{number}"))
            self.file = self.open()
        os.write(self.file, text)


def waiting(spool: Path) -> Iterator[Path]:
    """The entries' files, the oldest first; their folders are named after days and minutes."""
    for folder, folders, names in os.walk(spool):
        folders.sort()
        yield from (Path(folder) / name for name in sorted(names))


def gather(spool: Path, log: Log) -> int:
    """Move what waits into the log; returns how many entries there were."""
    entries = list(waiting(spool))
    dropped = entries[: max(0, len(entries) - WAITING)]
    for path in dropped:
        path.unlink(missing_ok=True)
    if dropped:
        log.write(json.dumps({"time": time.ctime(), "dropped": len(dropped)}).encode() + b"\n")
    for path in entries[len(dropped) :]:
        try:
            with path.open("rb") as file:
                # A value that matched may begin or end within a character
                text = line(json.loads(file.read(ENTRY_BYTES).decode(errors="replace")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if time.time() - path.stat().st_mtime < UNFINISHED:
                continue
            text = json.dumps({"time": time.ctime(), "unreadable": path.name, "error": str(error)[:VALUE_LENGTH]}).encode() + b"\n"
        log.write(text)
        path.unlink()
    return len(entries)


def remove_folders(spool: Path) -> None:
    """Remove the folders of past minutes and days; nginx may still want the last ones."""
    for folder, _, _ in os.walk(spool, topdown=False):
        if folder != str(spool) and time.time() - os.stat(folder).st_mtime > 24 * 3600 * (Path(folder).parent == spool) + 300:
            try:
                os.rmdir(folder)
            except OSError:  # not empty
                continue


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spool", type=Path)
    parser.add_argument("log", type=Path)
    parser.add_argument("--mb", type=int, required=True)
    chosen = parser.parse_args()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    log = Log(chosen.log, chosen.mb * 1024 * 1024)
    while not ended.is_set():
        found = gather(chosen.spool, log)
        if not found:
            remove_folders(chosen.spool)
        ended.wait(0.2 if found else 1)


if __name__ == "__main__":
    main()
