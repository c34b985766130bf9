"""An environment's own group_vars/all beats the fleet's baseline in the root group_vars/all, whichever way the playbook is started."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PLAY = """
- name: Show what won
  hosts: all
  gather_facts: false
  tasks:
    - name: Show what won
      ansible.builtin.debug:
        msg: "won={{ [everywhere, overridden, in_web] | to_json }}"
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's own ansible.cfg, site.yml and layout, with one play that shows variables of both levels."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("ansible.cfg", "site.yml"):
        shutil.copy(ROOT / name, folder / name)
    files = {
        "group_vars/all/fleet.yml": {"everywhere": "fleet", "overridden": "fleet", "in_web": "fleet"},
        "inventories/here/hosts.yml": {"web": {"hosts": {"one": {}}}},
        "inventories/here/group_vars/all/main.yml": {"overridden": "environment", "in_web": "environment"},
        "inventories/here/group_vars/web.yml": {"in_web": "group"},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(yaml.safe_dump(content))
    (folder / "playbooks").mkdir()
    (folder / "playbooks/site.yml").write_text(PLAY)
    (folder / "playbooks/group_vars").symlink_to((ROOT / "playbooks/group_vars").readlink())
    return folder


@pytest.mark.parametrize("playbook", ["site.yml", "playbooks/site.yml"])
def test_the_environment_beats_the_baseline(project: Path, playbook: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "inventories/here", playbook]
    run = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert json.loads(run.stdout.split("won=")[1].split("\n")[0].strip("'\" ")) == ["fleet", "environment", "group"]


def test_every_environment_has_its_own_group_vars() -> None:
    environments = [path for path in (ROOT / "inventories").iterdir() if path.is_dir()]
    assert environments
    assert all((path / "group_vars/all").is_dir() for path in environments)
