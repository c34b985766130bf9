"""What the tests of slots and releases share: systemd stood in for, a step of a slot, and a server on a socket."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

from ansible.module_utils.app_releases import ReleaseError, select

from plugins.modules import app_slot

UNITS = ["shop-web@.socket", "shop-web@.service"]


class Systemd:
    """Which units run, and which would after a reboot."""

    def __init__(self) -> None:
        self.active: set[str] = set()
        self.enabled: set[str] = set()
        self.removed: set[str] = set()
        self.gone: set[str] = set()
        self.restarts = 0
        self.broken = ""
        self.restarted: list[str] = []
        self.lines: list[dict[str, Any]] = []
        self.verbs: list[tuple[str, set[str], tuple[str, ...]]] = []

    def __call__(self, verb: str, units: Sequence[str] | None = None, *options: str) -> str:
        names = list(units or [])
        self.verbs.append((verb, self.slots(set(names)), options))
        if missing := set(names) & {"start": self.gone, "enable": self.removed}.get(verb, set()):
            raise ReleaseError(f"{missing} not found")
        match verb:
            case "daemon-reload":
                self.gone |= self.removed
            case "start":
                if self.broken and any(self.broken in name for name in names):
                    raise ReleaseError(f"{self.broken} does not start")
                self.active |= set(names)
            case "stop":
                self.active -= set(names)
            case "enable":
                self.enabled |= set(names)
            case "disable":
                self.enabled -= set(names)
            case "try-restart":
                self.restarted += names
            case "show":
                return "\n\n".join(
                    f"Id={name}\nLoadState={'not-found' if name in self.gone else 'loaded'}\n"
                    f"ActiveState={'active' if name in self.active else 'inactive'}\nNRestarts={self.restarts}\n"
                    f"UnitFileState={'enabled' if name in self.enabled else 'disabled'}\nResult=success\n"
                    for name in names
                )
        return ""

    def slots(self, which: set[str]) -> set[str]:
        return {name.split("@")[1].split(".")[0] for name in which if "@" in name}


def ask(home: Path, state: str, check: bool = False, **given: Any) -> dict[str, Any]:
    root = home.parent
    arguments = {
        "root": str(home / "web"), "state": state, "slot": "", "units": UNITS, "release": str(home / "current"), "watched": [],
        "files": [str(root / "environment")], "copies": str(root / "copies"), "run": f"{root}/run-{{slot}}", "followers": ["shop-beat.service"],
        "socket": "s", "paths": ["/healthz"], "host": "localhost", "timeout": 2, "least": 0, "wait": True, "reason": "", "bad": "", "who": "ann", **given,
    }  # fmt: skip
    return app_slot.apply(arguments, check)


def move(home: Path, release: str = "") -> str:
    """What the roles do, where all goes well."""
    if release:
        select(home, release)
    slot = ask(home, "compared")["idle"]
    for state in ("started", "live", "stopped"):
        ask(home, state, slot=slot)
    return str(slot)


class Handler(BaseHTTPRequestHandler):
    statuses: dict[str, int]

    def do_GET(self) -> None:
        self.send_response(self.statuses.get(self.path, 404))
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def server(path: Path, **statuses: int) -> Iterator[None]:
    """Answers on a socket, with a status for each path."""
    path.parent.mkdir(exist_ok=True)
    handler = type(
        "Answers", (Handler,), {"statuses": {f"/{name}": status for name, status in statuses.items()}, "client_address": ("", 0)}
    )
    with ThreadingUnixStreamServer(str(path), handler) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            made.shutdown()
            thread.join()
