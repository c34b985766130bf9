"""Hosts of tests keep the code of Ansible's modules: the same code, by whatever is left of a file."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools.console import ROOT

KEPT_CODE = ROOT / "molecule/resources/kept_code.py"


def run(folder: Path, archive: Path, source: str) -> str:
    """Run a program from an archive as a host does; returns what it says and where it says that it lies."""
    archive.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("ansible/__init__.py", "")
        made.writestr("ansible/spoken.py", source)
    program = f"""
import runpy, sys
kept = runpy.run_path({str(KEPT_CODE)!r})
kept["compiled"].__globals__["FOLDER"] = {str(folder)!r}
sys.path.insert(0, {str(archive)!r})
from ansible import spoken
print(spoken.say(), spoken.say.__code__.co_filename)
"""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60).stdout


def said(word: str) -> str:
    return f"def say():\n    return {word!r}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "kept").mkdir()
    return tmp_path / "kept"


def test_kept_code_is_used_and_knows_where_it_lies(tmp_path: Path, folder: Path) -> None:
    """Catches code that is compiled anew each time, and tracebacks that name another task's archive."""
    places = [tmp_path / name / "ansible_x_payload.zip" for name in ("first", "second")]
    for place in places:
        assert run(folder, place, said("yes")) == f"yes {place}/ansible/spoken.py\n"
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(times) == 2
    run(folder, places[0], said("yes"))
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == times


def test_another_source_is_other_code(tmp_path: Path, folder: Path) -> None:
    place = tmp_path / "x" / "ansible_x_payload.zip"
    assert [run(folder, place, said(word)).split()[0] for word in ("yes", "nay")] == ["yes", "nay"]


@pytest.mark.parametrize("broken", [b"", b"short", b"x" * 200])
def test_a_broken_file_is_written_anew(tmp_path: Path, folder: Path, broken: bytes) -> None:
    """Catches a task that fails, or does something else, by what a host that went away has left."""
    place = tmp_path / "x" / "ansible_x_payload.zip"
    run(folder, place, said("yes"))
    whole = {path: path.read_bytes() for path in folder.iterdir()}
    for path, content in whole.items():
        path.write_bytes(broken if len(broken) < 100 else content[:-1])
    assert run(folder, place, said("yes")).startswith("yes ")
    assert {path: path.read_bytes() for path in folder.iterdir()} == whole


def test_nothing_is_kept_where_it_cannot_be_and_of_other_archives(tmp_path: Path, folder: Path) -> None:
    assert run(tmp_path / "missing", tmp_path / "x" / "ansible_x_payload.zip", said("yes")).startswith("yes ")
    assert run(folder, tmp_path / "x" / "other.zip", said("yes")).startswith("yes ")
    assert list(folder.iterdir()) == []
