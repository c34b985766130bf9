"""Rotations of secrets under load."""

from __future__ import annotations

import http.client
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from tools.console import ROOT
from tools.fleet import SITE, Fleet
from tools.load import Load, Request
from tools.secrets import ansible_vault

# Some of the tasks take so long that a move of the workers finds them at work
MIX = [
    *[
        Request("GET", "/"),
        Request("POST", "/api/reports", '{"text": "Number {number}."}'),
        Request("GET", "/healthz"),
        Request("GET", "/api/reports"),
    ]
    * 5,
    Request("POST", "/api/reports", '{"text": "Number {number}, slowly.", "delay_seconds": 3}'),
]
RATE = 8.0


@dataclass
class Visitor:
    """A browser that keeps one session: it loads the form, and sends it a moment later."""

    load: Load
    cookie: str = ""
    token: str = ""
    statuses: list[int] = field(default_factory=list)
    # How many it was given
    sessions: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    def ask(self, method: str, body: str = "") -> tuple[int, str]:
        client = self.load.client()
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
        try:
            client.request(method, "/", body or None, headers | ({"Cookie": self.cookie} if self.cookie else {}))
            answer = client.getresponse()
            text = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error)
        finally:
            client.close()
        if given := answer.headers["Set-Cookie"]:
            self.cookie = given.partition(";")[0]
            self.sessions += 1
        return answer.status, text

    def open(self) -> None:
        status, page = self.ask("GET")
        found = re.search(r'name="csrf_token" value="([^"]+)"', page)
        self.token = found[1] if found else ""
        if status != 200:
            self.statuses.append(status)

    def send(self) -> int:
        status, _ = self.ask("POST", urlencode({"csrf_token": self.token, "text": "Some words of a visitor."}))
        self.statuses.append(status)
        return status

    def stay(self) -> None:
        while not self.stopping.is_set():
            self.open()
            # Reads the page
            self.stopping.wait(1)
            self.send()

    def start(self) -> None:
        self.cookie = ""
        self.stopping.clear()
        self.thread = threading.Thread(target=self.stay, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.stopping.set()
        if self.thread:
            self.thread.join()


@pytest.fixture(scope="module")
def generated() -> Path:
    return Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])


@pytest.fixture(scope="module")
def fleet(address: str, generated: Path) -> Fleet:
    return Fleet(address, generated / "ca/ca.pem", ROOT / "app", os.environ["MOLECULE_INVENTORY_FILE"])


@pytest.fixture(scope="module")
def load(fleet: Fleet) -> Iterator[Load]:
    made = Load(SITE, MIX, RATE, fleet.ca_file, fleet.address)
    yield made
    made.stop()


@dataclass
class Vault:
    """The environment's vault, and all secrets that it has had so far, by their names."""

    path: Path
    seen: list[dict[str, Any]] = field(default_factory=list)

    def look(self) -> dict[str, Any]:
        text = ansible_vault("view", ROOT / "molecule/secrets/vault-password", str(self.path))
        assert self.path.read_text().startswith("$ANSIBLE_VAULT;")
        self.seen.append(yaml.safe_load(text))
        return self.seen[-1]

    def secrets(self) -> set[str]:
        names = r"vault_\w+_password$|vault_app_secret_key$"
        return {value for one in self.seen for name, value in one.items() if re.match(names, name)}


@pytest.fixture(scope="module")
def vault(generated: Path) -> Vault:
    return Vault(generated / "vault.yml")


@pytest.fixture(scope="module")
def visitor(load: Load) -> Visitor:
    return Visitor(load)
