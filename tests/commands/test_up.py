"""The README's first command, as a newcomer runs it: on a clean checkout, twice, and down again."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import browser, engine, runs

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """A host beside the one that may be up already, with Debian 12 as `default` has 13, and images kept for whoever else uses them."""
    ports = {f"GROUNDCREW_{name}_PORT": str(free_port()) for name in ("HTTP", "HTTPS", "SSH")}
    # The make that runs these tests is not the one that a newcomer calls
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return {
        **inherited,
        **ports,
        "GROUNDCREW_NAME": f"groundcrew-up-{os.getpid()}",
        "GROUNDCREW_KEEP": "1",
        "GROUNDCREW_RELEASE": "bookworm",
    }


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[Path]:
    """The files under version control and nothing else, but for what takes long to fetch and is fetched the same."""
    engine.ensure()
    client = engine.connect()
    for container in client.containers.list(all=True, filters={"name": "^groundcrew-up-"}, ignore_removed=True):
        if runs.process_started(int(str(container.name).rpartition("-")[2])) is None:
            runs.remove(container)
    folder = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    names = [name for name in listed.decode().split("\0") if name and (ROOT / name).exists()]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    yield folder
    subprocess.run(["make", "down"], cwd=folder, env=environment, check=False, capture_output=True)


def make(target: str, checkout: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(["make", target], cwd=checkout, env=environment, check=False, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


def curl(checkout: Path, *arguments: str) -> str:
    command = ["curl", "--silent", "--show-error", "--max-time", "10", "--cacert", ".local/ca.pem", *arguments]
    return subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True).stdout


def test_up_again_and_down(checkout: Path, environment: dict[str, str]) -> None:
    """Catches a first command that fails on a clean checkout, a second one that changes something, and a host that down leaves.

    Between the two: an address that a visitor's browser refuses, or that http leads to on another port.
    """
    first = make("up", checkout, environment)
    site = f"https://localhost:{environment['GROUNDCREW_HTTPS_PORT']}"
    assert site in first
    assert "make down" in first
    assert json.loads(curl(checkout, "--fail", f"{site}/readyz"))["ready"] is True
    plain = f"http://localhost:{environment['GROUNDCREW_HTTP_PORT']}"
    redirect = curl(checkout, "--output", "/dev/null", "--write-out", "%{http_code} %{redirect_url}", f"{plain}/readyz?a=b")
    assert redirect == f"301 {site}/readyz?a=b"
    seen = browser.visit(engine.connect(), site, checkout / ".local/ca.pem", "host")
    assert seen == {"state": "done", "words": "4", "same_page": True, "console": []}
    assert "nothing changed" in make("up", checkout, environment)
    hostname = subprocess.run(
        [*(".venv/bin/python", "-m", "tools.access"), "hostname"], cwd=checkout, env=environment, check=True, capture_output=True, text=True
    )
    assert hostname.stdout.strip() == environment["GROUNDCREW_NAME"]
    down = make("down", checkout, environment)
    assert environment["GROUNDCREW_NAME"] in down
    assert not (checkout / ".local").exists()
    # Down stops an engine that was started by hand and that nobody else uses
    engine.ensure()
    assert engine.connect().containers.list(all=True, filters={"name": environment["GROUNDCREW_NAME"]}) == []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", int(environment["GROUNDCREW_HTTPS_PORT"])))
