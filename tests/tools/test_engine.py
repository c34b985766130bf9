"""Which engine is used, when one is started, and what a user who may not start one is told."""

from __future__ import annotations

import getpass
import os
import shutil
from pathlib import Path

import pytest

from tools import engine
from tools.console import Problem


@pytest.fixture(autouse=True)
def no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No engine answers, nobody is root, and nothing is installed."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    monkeypatch.setattr(engine, "answers", lambda: False)
    monkeypatch.setattr(engine, "SOCKET", tmp_path / "docker.sock")
    monkeypatch.setattr(engine, "PID_FILE", tmp_path / "dockerd.pid")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def test_an_engine_that_answers_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "answers", lambda: True)
    assert engine.ensure() == "was running"


def test_a_named_engine_that_does_not_answer_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2375")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(Problem, match="no Docker engine answers at DOCKER_HOST"):
        engine.ensure()


def test_a_user_outside_the_docker_group_is_told_how_to_get_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    socket = tmp_path / "docker.sock"
    socket.touch()
    monkeypatch.setattr(os, "access", lambda *_: False)
    problem = engine.remedy_without_root(socket)
    assert problem is not None
    assert problem.remedy.splitlines()[0] == "sudo usermod -aG docker ada"


def test_a_user_with_a_rootless_engine_is_told_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "docker.sock").touch()
    problem = engine.remedy_without_root(tmp_path / "other.sock")
    assert problem is not None
    assert f"export DOCKER_HOST=unix://{tmp_path}/docker.sock" in problem.remedy


def test_a_docker_client_without_an_engine_is_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/docker" if name == "docker" else None)
    with pytest.raises(Problem, match="no Docker engine answers") as raised:
        engine.ensure()
    assert "sudo apt-get install docker.io" in raised.value.remedy


@pytest.mark.parametrize(("installed", "how"), [(True, "started"), (False, "installed and started")])
def test_root_gets_an_engine(monkeypatch: pytest.MonkeyPatch, installed: bool, how: str) -> None:
    done: list[str] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/sbin/{name}" if installed else None)
    monkeypatch.setattr(engine, "install", lambda: done.append("install"))
    monkeypatch.setattr(engine, "start", lambda: done.append("start"))
    assert engine.ensure() == how
    assert done == (["start"] if installed else ["install", "start"])


@pytest.mark.parametrize("content", ["", "nonsense", pytest.param(str(os.getpid()), id="own"), "4194305"])
def test_only_a_dockerd_that_we_have_started_is_ours(content: str) -> None:
    engine.PID_FILE.write_text(content, encoding="ascii")
    assert engine.started_by_us() is None
    assert engine.stop_if_ours() == "engine left as it was found"
