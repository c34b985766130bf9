"""The image of a host that the role base has converged: scenarios start from it where a fresh host is not the point."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from pathlib import Path

import docker

from tools import engine, host, image, runs
from tools.console import LOGS, ROOT, Problem, run_command, run_logged, say

PREPARE = ROOT / "molecule" / "resources" / "prepare.yml"
# What decides how the host ends up, beside the image that it starts from
PLUGINS = [ROOT / "plugins" / "action" / "role_variables.py", ROOT / "plugins" / "modules" / "stale_units.py"]
SOURCES = [PREPARE, ROOT / "requirements.lock", ROOT / "ansible.cfg", ROOT / "roles" / "base", *PLUGINS]
# Every host makes its own again
FORGET = "truncate --size 0 /etc/machine-id && rm -rf /var/log/journal/* /etc/ssh/ssh_host_* /var/lib/systemd/random-seed"


def prepared_image(release: str) -> str:
    return f"groundcrew-prepared:{release}"


def content(client: docker.DockerClient, release: str) -> str:
    """A hash over all that the image is made from."""
    digest = hashlib.sha256(str(client.images.get(image.host_image(release)).id).encode())
    for source in SOURCES:
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if path.is_file() and path.suffix != ".pyc":
                digest.update(f"{path.relative_to(ROOT)}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def build(client: docker.DockerClient, release: str, wanted: str) -> None:
    """Converge a host by the role base alone, and commit it."""
    container = host.start(client, f"groundcrew-prepare-{release}-{os.getpid()}", release, labels=runs.labels())
    try:
        host.wait_until_up(container)
        playbook = str(Path(sys.executable).parent / "ansible-playbook")
        connection = ["-i", f"{container.name},", "-c", "community.docker.docker_api"]
        run_logged([playbook, *connection, str(PREPARE)], LOGS / f"prepared-{release}.log")
        code, output = host.run_in(container, FORGET)
        if code:
            raise Problem(f"{container.name} cannot be made an image: {output}")
        container.stop(timeout=60)
        labels = {image.CONTENT_LABEL: wanted, image.IMAGE_LABEL: "groundcrew-prepared", **dict.fromkeys(runs.labels(), "")}
        container.commit(*prepared_image(release).split(":"), changes=[f'LABEL "{key}"="{value}"' for key, value in labels.items()])
    finally:
        runs.remove(container)


def ensure(client: docker.DockerClient, release: str) -> str:
    """Make the image of a release be there; returns its name."""
    image.ensure(client, release)
    name = prepared_image(release)
    with image.build_lock(name):
        wanted = content(client, release)
        if not image.local_image(client, name, wanted):
            build(client, release, wanted)
    client.images.prune(filters={"dangling": True, "label": image.IMAGE_LABEL})
    return name


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("releases", nargs="*", metavar="RELEASE", default=list(image.RELEASES), help="all by default")
    client = engine.connect()
    for release in parser.parse_args().releases:
        say(ensure(client, release))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
