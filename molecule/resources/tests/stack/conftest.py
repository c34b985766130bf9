"""The site as a visitor on the controller sees it."""

from __future__ import annotations

import http.client
import json
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import testinfra

SITE = "localhost"


@dataclass(frozen=True)
class Answer:
    """A response, read whole."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Site:
    """The site behind an address, over TLS that is checked against the internal CA."""

    address: str
    ca_file: Path

    def connection(self) -> http.client.HTTPSConnection:
        """Return a connection to the address that asks for the site's name."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        connection = http.client.HTTPSConnection(SITE, timeout=10, context=context)
        connection._create_connection = lambda _, *rest, **kw: http.client.socket.create_connection(  # type: ignore[attr-defined]
            (self.address, 443), *rest, **kw
        )
        return connection

    def get(self, path: str) -> Answer:
        """Return the answer to a GET."""
        return self.request("GET", path)

    def request(self, method: str, path: str, document: Any = None) -> Answer:
        """Return the answer to a request whose body is the document as JSON."""
        connection = self.connection()
        try:
            body = None if document is None else json.dumps(document)
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def ready(self) -> bool:
        """Tell whether every component says that it is ready."""
        return self.get("/readyz").status == 200

    def finished(self, location: str) -> bool:
        """Tell whether the report at this path is done."""
        return bool(self.get(location).json()["state"] == "done")


@pytest.fixture(scope="session")
def generated() -> Path:
    """Return the folder in which this scenario's CA and secrets were generated."""
    return Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])


@pytest.fixture(scope="session")
def secrets(generated: Path) -> dict[str, str]:
    """Return the secrets that were generated for this scenario, by their names."""
    names = ("postgresql_app_password", "redis_broker_password", "redis_cache_password", "app_secret_key")
    return {name: (generated / "secrets" / name).read_text().split()[0] for name in names}


@pytest.fixture(scope="module")
def site(address: str, generated: Path) -> Site:
    """Return the site on the host under test."""
    return Site(address, generated / "ca" / "ca.pem")


@pytest.fixture(scope="module")
def web(request: pytest.FixtureRequest, generated: Path) -> Site:
    """Return the site on the environment's first web server, whichever host is under test."""
    host, *_ = testinfra.get_hosts(["web"], connection="ansible", ansible_inventory=request.config.option.ansible_inventory)
    return Site(str(host.ansible.get_variables()["ansible_host"]), generated / "ca" / "ca.pem")
