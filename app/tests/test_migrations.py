"""Migrations: up, down, and in step with the models."""

from __future__ import annotations

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect

from textreport.models import SCHEMA_REVISION


def test_down_and_up_again(engine: Engine, alembic_config: Config) -> None:
    """Every migration can be undone and redone."""
    command.downgrade(alembic_config, "base")
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}
    command.upgrade(alembic_config, "head")
    assert {"reports", "hourly_totals"} <= set(inspect(engine).get_table_names())


@pytest.mark.usefixtures("engine")
def test_models_and_migrations_agree(alembic_config: Config) -> None:
    """A model changed without a migration fails here."""
    command.check(alembic_config)


def test_code_knows_the_newest_revision(alembic_config: Config) -> None:
    """/readyz compares with this constant; revisions are numbered, so that newer and older differ."""
    scripts = ScriptDirectory.from_config(alembic_config)
    assert scripts.get_heads() == [SCHEMA_REVISION]
    assert all(len(script.revision) == 4 and script.revision.isdigit() for script in scripts.walk_revisions())


def test_sql_without_a_database(alembic_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """An operator may read the SQL first."""
    alembic_config.output_buffer = None
    command.upgrade(alembic_config, "head", sql=True)
    assert "CREATE TABLE reports" in capsys.readouterr().out
