"""Clients of nginx on the host under test, over real connections, and auditors' scans of all hosts at once."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
import testinfra

from tools import audit, engine, runs

SITE = "www.test.example"


class Answer:
    """A response, read whole."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.body = answer.read()

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


class Client(http.client.HTTPConnection):
    """A kept-alive HTTPS connection over a socket that is there already."""

    def __init__(self, connected: ssl.SSLSocket, name: str) -> None:
        super().__init__(name, 443)
        self.sock = connected

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Return the answer to a request."""
        self.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
        return Answer(self.getresponse())


@dataclass(frozen=True)
class Server:
    """nginx at an address, with the CA that its certificates are of."""

    address: str
    ca: Path

    def context(self, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """Return what trusts the CA, and where wanted knows one version of TLS alone."""
        made = ssl.create_default_context(cafile=str(self.ca))
        if version:
            made.set_ciphers("ALL:@SECLEVEL=0")
            made.minimum_version = made.maximum_version = version
        return made

    def connect(self, name: str | None = SITE, made: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """Return a connection after the handshake."""
        made = made or self.context()
        made.check_hostname = name is not None
        return made.wrap_socket(socket.create_connection((self.address, 443), timeout=20), server_hostname=name)

    def client(self, name: str = SITE) -> Client:
        """Return a kept-alive connection to a site."""
        return Client(self.connect(name), name)

    def get(self, path: str, name: str = SITE, **headers: str) -> Answer:
        """Return the answer to a GET on a connection of its own."""
        return self.client(name).ask("GET", path, None, **headers)


@pytest.fixture(scope="session")
def ca() -> Path:
    """Return the certificate of the scenario's CA."""
    return Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "ca" / "ca.pem"


@pytest.fixture(scope="module")
def server(address: str, ca: Path) -> Server:
    """Return the server as strangers reach it."""
    return Server(address, ca)


@pytest.fixture(scope="module")
def proxied(host: Any, ca: Path) -> Server:
    """Return the server as the declared proxy reaches it, which the controller is over IPv6."""
    addresses = host.check_output("ip -6 -o address show scope global").split()
    return Server(next(word.split("/")[0] for word in addresses if word.startswith("fd67:")), ca)


@pytest.fixture(scope="session")
def network() -> str:
    """Return the network that the scenario's hosts are in."""
    return f"groundcrew-{os.environ['MOLECULE_SCENARIO_NAME']}"


@pytest.fixture(scope="session")
def auditor() -> docker.DockerClient:
    """Return the engine that auditors' tools run in."""
    return engine.connect()


@pytest.fixture(scope="session", autouse=True)
def scans(request: pytest.FixtureRequest, network: str, ca: Path, auditor: docker.DockerClient) -> Iterator[dict[str, audit.Program]]:
    """Return testssl.sh on each host, started before the first test: it takes its time, and only the last tests disturb it."""
    wanted = any(item.name.startswith("test_testssl") for item in request.session.items)
    hosts = testinfra.get_hosts(["all"], connection="ansible", ansible_inventory=request.config.option.ansible_inventory) if wanted else []
    addresses = [str(one.ansible.get_variables()["ansible_host"]) for one in hosts]
    started: dict[str, audit.Program] = {}
    try:
        for address in addresses:
            started[address] = audit.start_testssl(auditor, network, f"https://{SITE}", address, ca)
        yield started
    finally:
        for program in started.values():
            runs.remove(program.container)
