"""Which files are linted with what."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import lint
from tools.console import Problem


@pytest.mark.parametrize(
    ("schema", "file"), [("github-workflows", ".github/workflows/ci.yml"), ("gitlab-ci", "docs/gitlab-ci.example.yml")]
)
def test_every_ci_file_is_checked_against_its_schema(schema: str, file: str) -> None:
    """Catches a pattern that passes a file by."""
    checked = {linter.name: linter.command for linter in lint.schema_checks(list(lint.files()))}
    assert file in checked[schema]


def test_a_pattern_without_files_is_a_problem(tmp_path: Path) -> None:
    """Catches a renamed file that nobody checks any more."""
    workflow = tmp_path / ".github/workflows/ci.yml"
    with pytest.raises(Problem, match="gitlab-ci: no file is named"):
        list(lint.schema_checks([workflow], tmp_path))
