"""What auditors use, in a container of its own beside the hosts: testssl.sh, nmap, a curl that speaks HTTP/3."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container

from tools import image, runs
from tools.console import Problem

# All that testssl.sh asks for before it gives a grade: protocols, ciphers, forward secrecy, the certificate, headers, every vulnerability.
# Not what it would do at length besides, the handshakes of 40 clients and the order of ciphers.
GRADED = ("-p", "-s", "-f", "-S", "-h", "-U")
SCAN_SECONDS = 420


@dataclass(frozen=True)
class Program:
    """A program that runs in a container, and what it says there."""

    container: Container

    def result(self, seconds: int = SCAN_SECONDS) -> tuple[int, str]:
        """Its exit code and its output; the container is gone then."""
        try:
            code = int(self.container.wait(timeout=seconds)["StatusCode"])
            return code, self.container.logs(stdout=True, stderr=True).decode(errors="replace")
        finally:
            runs.remove(self.container)


def start(client: docker.DockerClient, network: str, command: Sequence[str], authority: Path | None = None) -> Program:
    """Start a command on a network of containers, or in the network of one ("container:ID"); the CA is at /ca.pem."""
    container = client.containers.create(
        image.ensure_helper(client, "audit"), list(command), network_mode=network, labels=runs.labels(), init=True
    )
    try:
        if authority:
            archive = io.BytesIO()
            with tarfile.open(fileobj=archive, mode="w") as tar:
                tar.add(authority, "ca.pem")
            container.put_archive("/", archive.getvalue())
        container.start()
    except BaseException:
        runs.remove(container)
        raise
    return Program(container)


def start_testssl(client: docker.DockerClient, network: str, site: str, address: str, authority: Path) -> Program:
    """Start testssl.sh on a site at an address."""
    said = ["--warnings", "off", "--quiet", "--color", "0", "--jsonfile-pretty", "/found.json"]
    options = [*GRADED, *said, "--add-ca", "/ca.pem", "--ip", address, "--nodns", "min"]
    script = 'testssl "$@" > /log 2>&1; cat /found.json || cat /log'
    return start(client, network, ["bash", "-c", script, "testssl", *options, site], authority)


def testssl_found(program: Program) -> dict[str, tuple[str, str]]:
    """What testssl.sh has found: severity and words by the finding's name."""
    _, output = program.result()
    try:
        document: dict[str, Any] = json.loads(output)
        (target,) = document["scanResult"]
    except ValueError as error:
        raise Problem(f"testssl.sh did not come to an end:\n{output[-3000:]}") from error
    findings = [finding for part in target.values() if isinstance(part, list) for finding in part]
    return {finding["id"]: (finding["severity"], finding["finding"]) for finding in findings}
