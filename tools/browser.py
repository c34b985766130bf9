"""A headless browser that visits the site as a person does; tests of `make up` and of the whole stack run it."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import docker

from tools import image, runs
from tools.console import Problem

VISIT_SECONDS = 180


def visit(client: docker.DockerClient, site: str, authority: Path, network_mode: str) -> Any:
    """What the page showed to a visitor who trusts the CA of this file; the network is that of a container, or "host"."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(authority, "ca.pem")
    browser = client.containers.create(
        image.ensure_helper(client, "browser"),
        environment={"SITE": site},
        network_mode=network_mode,
        labels=runs.labels(),
        init=True,
    )
    try:
        browser.put_archive("/", archive.getvalue())
        browser.start()
        code = browser.wait(timeout=VISIT_SECONDS)["StatusCode"]
        output = browser.logs(stdout=True, stderr=True).decode()
    finally:
        runs.remove(browser)
    if code:
        raise Problem(f"the browser did not get through {site}:\n{output[-3000:]}")
    return json.loads(output.strip().splitlines()[-1])
