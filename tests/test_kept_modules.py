"""Tests pack each of Ansible's modules once: until the toolchain or a plugin of this repository changes."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.console import ROOT

CALLBACK = ROOT / "molecule/resources/callback"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with what decides over a packed module."""
    (tmp_path / "plugins/modules").mkdir(parents=True)
    (tmp_path / "plugins/modules/said.py").write_text(
        "from ansible.module_utils.basic import AnsibleModule\nAnsibleModule({}).exit_json(said='first')\n"
    )
    (tmp_path / "requirements.lock").write_text("ansible-core==1\n")
    (tmp_path / "molecule/resources").mkdir(parents=True)
    shutil.copytree(CALLBACK, tmp_path / "molecule/resources/callback")
    (tmp_path / "play.yml").write_text(
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n"
        "    - said:\n      register: answer\n    - assert:\n        that: answer.said == 'changed'\n    - ping:\n"
    )
    return tmp_path


def run(root: Path) -> int:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
        "ANSIBLE_CALLBACK_PLUGINS": str(root / "molecule/resources/callback"),
        "ANSIBLE_CALLBACKS_ENABLED": "kept_modules",
        "ANSIBLE_LIBRARY": str(root / "plugins/modules"),
        "ANSIBLE_LOCAL_TEMP": str(root / "local"),
    }
    program = Path(sys.executable).with_name("ansible-playbook")
    command = [str(program), "-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}", "play.yml"]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, check=False, timeout=120).returncode


def test_a_changed_module_is_packed_anew(root: Path) -> None:
    """Catches tests that run a module as it was before its change."""
    assert run(root) != 0
    module = root / "plugins/modules/said.py"
    module.write_text(module.read_text().replace("first", "changed"))
    assert run(root) == 0
    packed = {path: path.stat().st_mtime_ns for path in (root / ".cache/modules").rglob("*ping*none")}
    assert len(packed) == 1, "packed where nothing finds it, or not kept"
    assert run(root) == 0
    assert {path: path.stat().st_mtime_ns for path in packed} == packed


def test_another_toolchain_packs_anew(root: Path) -> None:
    spec = importlib.util.spec_from_file_location("kept_modules", CALLBACK / "kept_modules.py")
    assert spec
    assert spec.loader
    kept_modules = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kept_modules)
    before = kept_modules.folder(root)
    (root / "requirements.lock").write_text("ansible-core==2\n")
    assert kept_modules.folder(root) != before
