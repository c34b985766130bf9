"""Pages for people; they work without JavaScript."""

from __future__ import annotations

import uuid
from datetime import datetime

from flask import Blueprint, abort, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from textreport import reports

blueprint = Blueprint("pages", __name__)


@blueprint.get("/")
def index() -> ResponseReturnValue:
    """Show the form and the newest reports."""
    return render_template("index.html", reports=reports.recent())


@blueprint.post("/")
def create() -> ResponseReturnValue:
    """Take the form."""
    # browsers send line ends as CRLF; a line end is one character
    text = reports.check_text(request.form.get("text", "").replace("\r\n", "\n"))
    report = reports.create(text)
    return redirect(url_for("pages.show", report_id=report.id), 303)


@blueprint.get("/reports/<uuid:report_id>")
def show(report_id: uuid.UUID) -> ResponseReturnValue:
    """Show one report, or that it is being made."""
    report = reports.find(report_id)
    if report is None:
        abort(404, "There is no such report; old ones are removed.")
    return render_template("report.html", report=report), 200, {"Cache-Control": "no-store"}


@blueprint.app_template_filter()
def moment(value: datetime | str) -> str:
    """Write a time for people; the <time> element keeps the exact one."""
    when = datetime.fromisoformat(value) if isinstance(value, str) else value
    return f"{when:%d %b %Y, %H:%M:%S} UTC"


@blueprint.app_template_filter()
def duration(seconds: int) -> str:
    """Write a reading time for people."""
    if seconds < 60:
        return f"{seconds} s"
    return f"{seconds // 60}:{seconds % 60:02d} min"
