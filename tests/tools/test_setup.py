"""The small pieces of set-up: collections, virtual environments, linters' files, and the Makefile's help."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tools import galaxy, lint
from tools.console import ROOT


@pytest.mark.parametrize(
    ("version", "wanted", "answer"),
    [
        ("4.8.5", ">=4.8.0,<5", True),
        ("4.7.9", ">=4.8.0,<5", False),
        ("5.0.0", ">=4.8.0,<5", False),
        ("11.4.2", ">=11.4.0,<12", True),
        ("2.1.0", "==2.1.0", True),
        ("2.1.0", ">2.1", False),
        ("2.1.0", "<=2.1", True),
    ],
)
def test_ranges_of_versions(version: str, wanted: str, answer: bool) -> None:
    assert galaxy.fits(version, wanted) is answer


def test_collections_that_are_there_are_not_fetched() -> None:
    assert galaxy.missing(galaxy.search_path()) == []


def test_a_missing_or_an_old_collection_is_found_out(tmp_path: Path) -> None:
    wanted = [item["name"] for item in yaml.safe_load(galaxy.REQUIREMENTS.read_text())["collections"]]
    old = tmp_path / "community" / "docker"
    old.mkdir(parents=True)
    (old / "MANIFEST.json").write_text(json.dumps({"collection_info": {"version": "1.0.0"}}))
    assert galaxy.missing([tmp_path]) == wanted


def venv(folder: Path, lock: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(ROOT / "tools" / "venv.sh"), str(folder), str(lock)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_the_toolchain_is_made_once_and_again_when_the_lock_changes(tmp_path: Path) -> None:
    lock, folder = tmp_path / "requirements.lock", tmp_path / "venv"
    lock.write_text("# nothing\n")
    assert venv(folder, lock).stdout.startswith(f"Python packages of {lock} into {folder} ... ")
    assert venv(folder, lock).stdout == ""
    lock.write_text("# nothing more\n")
    assert venv(folder, lock).stdout != ""


def test_an_old_python_is_refused_with_the_remedy(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\n[ \"$1\" = -V ] && echo 'Python 3.9.2'\nexit 1\n")
    old.chmod(0o755)
    lock = tmp_path / "requirements.lock"
    lock.touch()
    # Only what the script itself needs, so that no newer Python is found
    for program in ("cksum", "cat"):
        (tmp_path / program).symlink_to(f"/usr/bin/{program}")
    done = venv(tmp_path / "venv", lock, PATH=str(tmp_path), PYTHON="python3")
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed, and python3 is Python 3.9.2" in done.stderr
    assert "apt-get install python3 python3-venv" in done.stderr


def test_shell_files_are_found_by_name_and_by_first_line(tmp_path: Path) -> None:
    for name, text in {
        "a.sh": "",
        "b": "#!/bin/sh\n",
        "c": "#!/usr/bin/env bash\n",
        "d": "#!/usr/bin/python3\n",
        "e.py": "#!/bin/sh\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert [path.name for path in lint.files(tmp_path) if lint.is_shell(path)] == ["a.sh", "b", "c"]


def test_generated_files_are_not_linted(tmp_path: Path) -> None:
    for folder in (".venv", ".local", "app.egg-info", ".mypy_cache", "roles"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").touch()
    assert [path.relative_to(tmp_path) for path in lint.files(tmp_path)] == [Path("roles/file")]


def test_every_target_of_the_makefile_has_its_line_of_help() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony
    internal = {"toolchain", "app-toolchain", "audit-toolchain"}
    shown = subprocess.run(["make", "-s", "-C", str(ROOT), "help"], check=True, capture_output=True, text=True).stdout
    assert {line.split()[1] for line in shown.splitlines()} == set(phony[1].split()) - internal
    assert len(shown.splitlines()) == len(set(phony[1].split()) - internal)
