"""The site as a person sees it, in a real browser."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import docker

from tools import image


def test_visitor_gets_a_report(generated: Path) -> None:
    """Catches a certificate that browsers refuse, a script or style that the security policy blocks, and a page that does not update."""
    client = docker.from_env()
    scenario = os.environ["MOLECULE_SCENARIO_NAME"]
    (host,) = client.containers.list(filters={"label": f"groundcrew.scenario={scenario}"})
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(generated / "ca" / "ca.pem", "ca.pem")
    # In the host's own network, where the site's name is its address
    browser = client.containers.create(
        image.ensure_helper(client, "browser"),
        environment={"SITE": "https://localhost/"},
        network_mode=f"container:{host.id}",
        labels={key: host.labels[key] for key in ("groundcrew.run",)},
        init=True,
    )
    try:
        browser.put_archive("/", archive.getvalue())
        browser.start()
        code = browser.wait(timeout=180)["StatusCode"]
        output = browser.logs(stdout=True, stderr=True).decode()
    finally:
        browser.remove(force=True)
    assert code == 0, output[-3000:]
    seen = json.loads(output.strip().splitlines()[-1])
    assert seen == {"state": "done", "words": "4", "same_page": True, "console": []}
