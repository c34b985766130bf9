"""Runs the migrations on the database that the environment names, one run at a time."""

from alembic import context
from sqlalchemy import NullPool, create_engine, text

from textreport.models import Base
from textreport.settings import database_url

LOCK = 7_265_912_204  # any number that nobody else uses in this database


def run() -> None:
    """Migrate in one transaction; a second run waits for the first, and none waits over 10 s for a lock."""
    engine = create_engine(database_url(), poolclass=NullPool, connect_args={"connect_timeout": 10})
    with engine.connect() as connection, connection.begin():
        connection.execute(text("set local lock_timeout = '10s'"))
        connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": LOCK})
        context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
        context.run_migrations()


if context.is_offline_mode():
    context.configure(url=database_url(), target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    run()
