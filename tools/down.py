"""Take the local environment down and leave nothing behind: containers, images, shared packages, .local/, an engine started by hand."""

from __future__ import annotations

import argparse
import os
import shutil
import sys

import docker
from docker.errors import APIError

from tools import engine, host, image, runs
from tools.console import LOCAL, ROOT, Problem, run_command, say

START_ENGINE = ".venv/bin/python -m tools.engine      # starts the engine, or says how to"


def remove_containers(client: docker.DockerClient) -> list[str]:
    """Remove what this checkout and dead test runs have left; a test run that is going on keeps its own."""
    removed = runs.remove_stale(client)
    for container in client.containers.list(all=True, filters={"label": f"{runs.CHECKOUT_LABEL}={ROOT}"}, ignore_removed=True):
        if runs.RUN_LABEL not in container.labels:
            runs.remove(container)
            removed.append(str(container.name))
    return removed


def remove_volumes(client: docker.DockerClient) -> list[str]:
    removed = []
    for name in [volume(release) for release in image.RELEASES for volume in (host.apt_volume, host.code_volume)]:
        try:
            client.volumes.get(name).remove()
        except APIError:
            # Not there, or in use by a host of another run
            continue
        removed.append(name)
    return removed


def main() -> int:
    argparse.ArgumentParser(
        description=__doc__, epilog="GROUNDCREW_KEEP=1 keeps the images and the shared packages for the next time."
    ).parse_args()
    if engine.answers():
        client = engine.connect()
        removed = remove_containers(client)
        if not os.environ.get("GROUNDCREW_KEEP"):
            removed += image.remove_all(client) + remove_volumes(client)
        say(f"Removed: {', '.join(removed) or 'no container, image or volume was there'}")
        say(f"Docker: {engine.stop_if_ours()}")
    elif LOCAL.exists():
        # .local/ stays: it is what says that a host was made, and holds the key to it
        raise Problem(
            "no Docker engine answers: the local host, images and volumes may be left on it, and nothing was removed",
            f"{START_ENGINE}\nmake down\nrm -r .local      # instead, where that engine is gone for good",
        )
    else:
        # As after a first `make down`, which stops an engine that `make up` has started by hand
        say(f"No Docker engine answers, so nothing was looked for on it. Where images or volumes are left:\n  {START_ENGINE}\n  make down")
    if LOCAL.exists():
        shutil.rmtree(LOCAL)
        say("Removed: .local/")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
