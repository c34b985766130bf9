"""Static files that an application makes itself: whose they are, and when they are made again."""

from __future__ import annotations

import gzip
import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.app_releases import ReleaseError

from plugins.modules import app_static

ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture(autouse=True)
def no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is given to others where the tests are not root's."""
    monkeypatch.setattr(os, "chown", lambda *_: None)
    monkeypatch.setattr(os, "fchown", lambda *_: None)


def ask(release: Path, state: str, check: bool = False) -> dict[str, Any]:
    return app_static.apply({"release": str(release), "folder": "static", "owner": ME, "state": state}, check)


def fill(release: Path) -> Path:
    folder = release / "src/static"
    ask(release, "open")
    (folder / "css").mkdir()
    (folder / "css/site.css").write_text("body { margin: 0 }\n" * 100)
    (folder / "css/site.css").chmod(0o600)
    return folder


def test_the_files_are_the_web_servers(tmp_path: Path) -> None:
    """Catches files that only the application can read, and no compressed copies of them."""
    folder = fill(tmp_path)
    assert ask(tmp_path, "sealed") == {"changed": True, "files": 1}
    found = (folder / "css/site.css").stat()
    assert found.st_mode & 0o777 == 0o644
    copy = folder / "css/site.css.gz"
    assert gzip.decompress(copy.read_bytes()) == (folder / "css/site.css").read_bytes()
    assert copy.stat().st_mtime == found.st_mtime < 2_000_000_000


def test_they_are_made_once(tmp_path: Path) -> None:
    """Catches a run that empties the folder of a release that serves."""
    folder = fill(tmp_path)
    ask(tmp_path, "sealed")
    assert ask(tmp_path, "open") == {"changed": False}
    assert (folder / "css/site.css").exists()


def test_half_a_set_is_made_again(tmp_path: Path) -> None:
    """Catches a run that was killed, whose files count as whole."""
    folder = fill(tmp_path)
    assert ask(tmp_path, "open", check=True) == {"changed": True}
    assert (folder / "css").exists()
    ask(tmp_path, "open")
    assert list(folder.iterdir()) == []


def test_a_command_that_fills_another_folder_is_an_error(tmp_path: Path) -> None:
    ask(tmp_path, "open")
    with pytest.raises(ReleaseError, match="app_static_folder"):
        ask(tmp_path, "sealed")
    assert ask(tmp_path, "open") == {"changed": True}


@pytest.mark.parametrize("name", ["file", "folder"])
def test_a_link_is_refused(tmp_path: Path, name: str) -> None:
    """Catches an application that has the web server read for it."""
    folder = fill(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("secret")
    (folder / "css/link").symlink_to(tmp_path / name)
    with pytest.raises(ReleaseError, match="is a link"):
        ask(tmp_path, "sealed")
