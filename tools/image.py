"""Build the host image of a Debian release: one Dockerfile over the registry's base, or over one made from the Debian mirror."""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
from docker.errors import APIError, DockerException, ImageNotFound

from tools import engine, packages
from tools.console import (
    CACHE,
    LOGS,
    ROOT,
    Problem,
    duration,
    one_line,
    run_command,
    run_logged,
    say,
    tail,
)

RELEASES = ("trixie", "bookworm")
HOST_CONTEXT = ROOT / "images" / "host"
CONTENT_LABEL = "groundcrew.content"
IMAGE_LABEL = "groundcrew.image"
REGISTRY_SECONDS = 20
# What `make down` removes beside the images with our label
PULLED = CACHE / "pulled-images"
PROXY_VARIABLES = (
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
)


def host_image(release: str) -> str:
    """The image of a host: GROUNDCREW_IMAGE (which may hold {release}), else the one built here."""
    if chosen := os.environ.get("GROUNDCREW_IMAGE"):
        return chosen.replace("{release}", release)
    return f"groundcrew-host:{release}"


def content_hash(context: Path, *extra: str) -> str:
    """A hash over the files of a build context and what else decides the image."""
    digest = hashlib.sha256()
    for path in sorted(item for item in context.rglob("*") if item.is_file()):
        digest.update(f"{path.relative_to(context)}\0".encode())
        digest.update(path.read_bytes())
    for text in extra:
        digest.update(f"\0{text}".encode())
    return digest.hexdigest()[:16]


def local_image(client: docker.DockerClient, name: str, content: str | None = None) -> bool:
    """Is the image there (and made from this content)?"""
    try:
        image = client.images.get(name)
    except ImageNotFound:
        return False
    return content is None or image.labels.get(CONTENT_LABEL) == content


def registry_has(name: str) -> bool:
    """Does the registry answer for this image, within a bounded time?"""
    try:
        docker.from_env(timeout=REGISTRY_SECONDS).images.get_registry_data(name)
    except (DockerException, OSError):
        return False
    return True


@contextmanager
def build_lock(name: str) -> Iterator[None]:
    """Two runs on one machine build an image once."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"{name.replace(':', '-').replace('/', '-')}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def bootstrap_base(client: docker.DockerClient, release: str, name: str) -> None:
    """Make the base image from the Debian mirror that apt's defaults and proxy variables name."""
    log = LOGS / f"image-{release}.log"
    packages.need(
        "mmdebstrap",
        ["mmdebstrap", "debian-archive-keyring"],
        "or name any systemd image: make up GROUNDCREW_IMAGE=...",
    )
    tarball = CACHE / f"base-{release}.tar"
    try:
        run_logged(
            ["mmdebstrap", "--quiet", "--variant=minbase", release, str(tarball)],
            log,
            remedy=f"Read {log}: is the Debian mirror reachable? A proxy is taken from http_proxy.\n"
            "Or name any systemd image: make up GROUNDCREW_IMAGE=...",
        )
        with tarball.open("rb") as stream:
            repository, tag = name.split(":")
            client.api.import_image(
                src=stream,
                repository=repository,
                tag=tag,
                changes=[f'LABEL "{IMAGE_LABEL}"="base"'],
            )
    finally:
        tarball.unlink(missing_ok=True)


def ensure_base(client: docker.DockerClient, release: str) -> str:
    """The name of a Debian base image that is there now."""
    official, own = f"debian:{release}-slim", f"groundcrew-base:{release}"
    for name in (official, own):
        if local_image(client, name):
            return name
    if registry_has(official):
        try:
            client.images.pull(official)
        except (DockerException, OSError) as error:
            # It answers, and yet refuses the image itself: a rate limit, a login, a proxy that lets only small answers through
            say(f"{official} cannot be pulled, so the base comes from the Debian mirror: {one_line(error)}")
        else:
            with PULLED.open("a", encoding="utf-8") as pulled:
                pulled.write(f"{official}\n")
            return official
    bootstrap_base(client, release, own)
    return own


def build(
    client: docker.DockerClient,
    context: Path,
    name: str,
    content: str,
    arguments: dict[str, str],
) -> None:
    """Build an image through the engine's API (no docker client needed), its output in a log."""
    log = LOGS / f"image-{name.replace(':', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    proxies = {key: os.environ[key] for key in PROXY_VARIABLES if os.environ.get(key)}
    error = ""
    with log.open("w", encoding="utf-8") as out:
        for event in client.api.build(
            path=str(context),
            tag=name,
            rm=True,
            forcerm=True,
            decode=True,
            buildargs={**proxies, **arguments},
            labels={CONTENT_LABEL: content, IMAGE_LABEL: name.split(":")[0]},
        ):
            out.write(event.get("stream", ""))
            error = event.get("error", error)
    if error:
        raise Problem(
            f"the image {name} could not be built: {error}\n{tail(log, 15)}",
            f"Read {log}",
        )


def ensure(client: docker.DockerClient, release: str, *, fresh: bool = False) -> str:
    """Make the host image of a release be there; returns how it came to be there."""
    name = host_image(release)
    if os.environ.get("GROUNDCREW_IMAGE"):
        if local_image(client, name):
            return f"{name}, there already"
        try:
            client.images.pull(name)
        except DockerException as error:
            raise Problem(
                f"the image {name} cannot be had: {error}",
                "Correct GROUNDCREW_IMAGE, or unset it",
            ) from error
        return f"{name}, pulled"
    content = content_hash(HOST_CONTEXT, release)
    with build_lock(name):
        if not fresh and local_image(client, name, content):
            return f"{name}, there already"
        base = ensure_base(client, release)
        build(client, HOST_CONTEXT, name, content, {"BASE": base})
    # What an earlier build has left without a name
    client.images.prune(filters={"dangling": True, "label": IMAGE_LABEL})
    return f"{name}, built over {base}"


def ensure_helper(client: docker.DockerClient, name: str) -> str:
    """Make an image that the tests use, built from images/NAME over the newest release's base, be there; returns its tag."""
    tag, context, release = f"groundcrew-{name}:latest", ROOT / "images" / name, RELEASES[0]
    content = content_hash(context, release)
    with build_lock(tag):
        if not local_image(client, tag, content):
            build(client, context, tag, content, {"BASE": ensure_base(client, release)})
    return tag


def remove_all(client: docker.DockerClient) -> list[str]:
    """Remove the images that these tools made or pulled and that no container uses; returns their names."""
    names = [tag for image in client.images.list(filters={"label": IMAGE_LABEL}) for tag in image.tags]
    if PULLED.exists():
        names += PULLED.read_text(encoding="utf-8").split()
        PULLED.unlink()
    removed = []
    for name in names:
        try:
            client.images.remove(name)
        except APIError:
            # In use by a container of somebody else, or gone
            continue
        removed.append(name)
    return removed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "releases",
        nargs="*",
        metavar="RELEASE",
        help=f"{' '.join(RELEASES)} (default: all)",
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="build again even where nothing has changed",
    )
    options = parser.parse_args()
    if unknown := set(options.releases) - set(RELEASES):
        raise Problem(
            f"unknown release {', '.join(sorted(unknown))}",
            f"Choose from: {' '.join(RELEASES)}",
        )
    engine.ensure()
    client = engine.connect()
    for release in options.releases or RELEASES:
        begin = time.monotonic()
        how = ensure(client, release, fresh=options.fresh)
        say(f"{how} ({duration(time.monotonic() - begin)})")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
