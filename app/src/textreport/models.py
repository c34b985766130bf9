"""Tables."""

from __future__ import annotations

import enum
import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, DateTime, Index, Integer, MetaData, String, Text, Uuid, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# The newest migration that this code knows; a test holds it equal to migrations/.
# Revisions are numbered, so that code can tell an older schema from a newer one.
SCHEMA_REVISION = "0001"


class State(enum.StrEnum):
    """Where a report stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        """Say whether the state will not change any more."""
        return self in (State.DONE, State.FAILED)


class Base(DeclarativeBase):
    """Names every constraint, so that migrations can drop it."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Report(Base):
    """A text and what was found in it."""

    __tablename__ = "reports"
    __table_args__ = (
        CheckConstraint("state in ('queued', 'running', 'done', 'failed')", name="state"),
        Index("ix_reports_created_at", "created_at"),
        Index("ix_reports_unfinished", "queued_at", postgresql_where=text("state in ('queued', 'running')")),
    )

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True, default=uuid.uuid4)
    text: Mapped[str] = mapped_column(Text)
    delay_seconds: Mapped[int] = mapped_column(Integer, server_default="0", default=0)
    state: Mapped[State] = mapped_column(String(10), server_default="queued", default=State.QUEUED)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    error: Mapped[str | None] = mapped_column(String(200))
    attempts: Mapped[int] = mapped_column(Integer, server_default="0", default=0)
    request_id: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    queued_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class HourlyTotal(Base):
    """What one hour's reports add up to; kept after the reports are removed."""

    __tablename__ = "hourly_totals"

    hour: Mapped[datetime] = mapped_column(DateTime(timezone=True), primary_key=True)
    reports: Mapped[int] = mapped_column(Integer)
    failed: Mapped[int] = mapped_column(Integer)
    characters: Mapped[int] = mapped_column(Integer)
