"""`make down`: what is removed, what is kept, and what is said where it cannot be known."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from docker.errors import APIError, NotFound

from tools import down, engine, host, image, runs
from tools.console import ROOT, run_command


@pytest.fixture(autouse=True)
def local(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A .local/ of the test's own, and an engine that answers and was not started by us."""
    (tmp_path / ".local").mkdir()
    monkeypatch.setattr(down, "LOCAL", tmp_path / ".local")
    monkeypatch.setattr(image, "PULLED", tmp_path / "pulled-images")
    monkeypatch.setattr(engine, "PID_FILE", tmp_path / "dockerd.pid")
    monkeypatch.setattr(engine, "answers", lambda: True)
    monkeypatch.setattr(sys, "argv", ["down"])
    monkeypatch.delenv("GROUNDCREW_KEEP", raising=False)
    return tmp_path / ".local"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    """An engine with this checkout's host, the host of a test run that goes on, an image and the packages of one release."""
    client = MagicMock()
    client.ours, client.tested = MagicMock(labels={runs.CHECKOUT_LABEL: str(ROOT)}), MagicMock(labels=runs.labels())
    client.ours.name, client.tested.name = "groundcrew-local", "groundcrew-nginx-debian13"
    labelled = {runs.RUN_LABEL: [client.tested], f"{runs.CHECKOUT_LABEL}={ROOT}": [client.ours, client.tested]}
    client.containers.list.side_effect = lambda filters, **_: labelled[filters["label"]]
    client.networks.list.return_value = []
    client.images.list.return_value = [MagicMock(tags=["groundcrew-host:trixie"])]
    volumes = {host.apt_volume("trixie"): MagicMock()}

    def get(name: str) -> MagicMock:
        if name not in volumes:
            raise NotFound(name)
        return volumes[name]

    client.volumes.get.side_effect = get
    client.volume = volumes[host.apt_volume("trixie")]
    monkeypatch.setattr(engine, "connect", lambda: client)
    return client


def test_everything_is_removed(client: MagicMock, local: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image.PULLED.write_text("debian:trixie-slim\n")
    assert run_command(down.main) == 0
    client.ours.remove.assert_called_once_with(force=True, v=True)
    client.tested.remove.assert_not_called()
    assert client.images.list.call_args.kwargs == {"filters": {"label": image.IMAGE_LABEL}}
    assert [call.args for call in client.images.remove.call_args_list] == [("groundcrew-host:trixie",), ("debian:trixie-slim",)]
    client.volume.remove.assert_called_once_with()
    removed = "groundcrew-local, groundcrew-host:trixie, debian:trixie-slim, groundcrew-apt-trixie"
    assert capsys.readouterr().out.splitlines() == [
        f"Removed: {removed}",
        "Docker: engine left as it was found",
        "Removed: .local/",
    ]
    assert not local.exists()
    assert not image.PULLED.exists()


def test_what_somebody_else_uses_is_left_and_not_said_to_be_removed(client: MagicMock, capsys: pytest.CaptureFixture[str]) -> None:
    client.images.remove.side_effect = client.volume.remove.side_effect = APIError("in use")
    assert run_command(down.main) == 0
    assert capsys.readouterr().out.splitlines()[0] == "Removed: groundcrew-local"


def test_images_and_packages_can_be_kept(client: MagicMock, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDCREW_KEEP", "1")
    assert run_command(down.main) == 0
    client.images.remove.assert_not_called()
    client.volume.remove.assert_not_called()
    assert not local.exists()


def test_without_an_engine_it_is_said_what_may_be_left(
    local: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches a .local/ that goes while the host stays, on an engine that is down just now."""
    monkeypatch.setattr(engine, "answers", lambda: False)
    assert run_command(down.main) == 1
    said = capsys.readouterr().err
    assert "the local host, images and volumes may be left" in said
    assert "python -m tools.engine" in said
    assert local.exists()


def test_a_second_down_says_that_nothing_was_asked(
    local: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine, "answers", lambda: False)
    local.rmdir()
    assert run_command(down.main) == 0
    assert "No Docker engine answers" in capsys.readouterr().out


@pytest.mark.parametrize(("left", "said"), [(".local", "tools.down"), (".cache", "tools.down"), ("", "nothing is up")])
def test_make_down_needs_no_toolchain_of_an_earlier_make(tmp_path: Path, left: str, said: str) -> None:
    """Catches a deleted .venv that makes `make down` leave the host."""
    checkout = tmp_path / "checkout"
    (checkout / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", checkout)
    toolchain = 'mkdir -p "$1/bin" && printf \'#!/bin/sh\\necho "$@"\\n\' > "$1/bin/python" && chmod +x "$1/bin/python"\n'
    (checkout / "tools/venv.sh").write_text(toolchain)
    (checkout / left).mkdir(exist_ok=True)
    done = subprocess.run(["make", "down"], cwd=checkout, capture_output=True, text=True, check=True)
    assert said in done.stdout
