"""tools.roles: a role whose defaults, specification and README differ is refused, with the file to change."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import roles

HARBOR = Path(__file__).parent / "fixtures/roles/harbor"


@pytest.fixture
def harbor(tmp_path: Path) -> Path:
    """A copy of the fixture role with its README as generated."""
    copy = tmp_path / "harbor"
    shutil.copytree(HARBOR, copy)
    (copy / "meta/main.yml").write_text("galaxy_info: {author: Nobody, description: A harbor, license: MIT, platforms: []}\n")
    (copy / "README.md").write_text(f"# harbor\n\nKept.\n\n{roles.BEGIN}\n{roles.END}\n")
    assert roles.main(["docs", "--roles-path", str(tmp_path)]) == 0
    return copy


def edit(path: Path, change: Any) -> None:
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))


def test_docs_fills_the_block_and_keeps_the_rest(harbor: Path) -> None:
    text = (harbor / "README.md").read_text()
    assert text.startswith("# harbor\n\nKept.\n")
    assert "| harbor_port |" in text


def test_check_passes_what_docs_wrote(harbor: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert roles.main(["check", "--roles-path", str(harbor.parent)]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("defaults", lambda d: d.update(harbor_new=1), "argument_specs.yml: harbor_new has a default and no specification"),
        ("defaults", lambda d: d.pop("harbor_mode"), "defaults/main.yml: harbor_mode is specified as optional and has no default"),
        ("defaults", lambda d: d.update(harbor_admin_password="x"), "harbor_admin_password is required, so it must have no default"),
        ("defaults", lambda d: d.update(harbor_port=80), "harbor_port has the default 80, and 443 is stated"),
        ("defaults", lambda d: d.update(harbor_enabled=1), "harbor_enabled has the default 1, and True is stated"),
        ("options", lambda o: o.pop("harbor_port"), "harbor_port has a default and no specification"),
        ("options", lambda o: o["harbor_port"].pop("description"), "harbor_port of entry point main has no description"),
        ("options", lambda o: o["harbor_users"]["options"]["name"].pop("description"), "harbor_users.name of entry point main has no"),
        ("options", lambda o: o["harbor_port"].update(description="Another."), "README.md: its variables are not those of"),
    ],
)
def test_check_names_file_and_difference(harbor: Path, file: str, change: Any, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    if file == "defaults":
        edit(harbor / "defaults/main.yml", change)
    else:
        edit(harbor / "meta/argument_specs.yml", lambda specs: change(specs["argument_specs"]["main"]["options"]))
    assert roles.main(["check", "--roles-path", str(harbor.parent)]) == 1
    assert message in capsys.readouterr().out


def test_a_missing_readme_and_a_missing_block_are_problems(harbor: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (harbor / "README.md").write_text("# harbor\n")
    assert roles.main(["check", "harbor", "--roles-path", str(harbor.parent)]) == 1
    assert "Could not find <!-- BEGIN_ANSIBLE_DOCS -->" in capsys.readouterr().out
    (harbor / "README.md").unlink()
    assert roles.main(["check", "harbor", "--roles-path", str(harbor.parent)]) == 1
    assert "README.md: it is missing" in capsys.readouterr().out
