"""Modules find this repository's module_utils under ansible.module_utils, as Ansible shows them to a module."""

import os
from pathlib import Path

import ansible.module_utils
import pytest

ansible.module_utils.__path__.append(str(Path(__file__).parents[2] / "plugins/module_utils"))

# They import the modules, which need the path above
from ansible.module_utils.app_releases import select  # noqa: E402

from plugins.modules import app_slot  # noqa: E402
from tests.plugins.slots import Systemd  # noqa: E402


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> Systemd:
    made = Systemd()
    monkeypatch.setattr(app_slot, "systemctl", made)
    monkeypatch.setattr(app_slot, "audit", lambda _file, _name, entry: made.lines.append(entry))
    return made


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for number, name in enumerate(["one", "two", "three"]):
        (tmp_path / "home/releases" / name).mkdir(parents=True)
        os.utime(tmp_path / "home/releases" / name, (number, number))
    (tmp_path / "environment").write_text("SECRET=1\n")
    (tmp_path / "environment").chmod(0o600)
    select(tmp_path / "home", "one")
    return tmp_path / "home"
