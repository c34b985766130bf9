"""The JSON API. It takes only application/json and reads no cookie, so no other site's form can use it."""

from __future__ import annotations

import uuid

from flask import Blueprint, abort, jsonify, request, url_for
from flask.typing import ResponseReturnValue

from textreport import reports

blueprint = Blueprint("api", __name__, url_prefix="/api/reports")


@blueprint.post("")
def create() -> ResponseReturnValue:
    """Take {"text": "..."} and answer 202 with the place of the report."""
    if request.mimetype != "application/json":
        abort(415, "Send application/json.")
    body = request.get_json()
    if not isinstance(body, dict):
        abort(400, 'Send an object: {"text": "..."}.')
    text = reports.check_text(body.get("text"))
    report = reports.create(text, reports.check_delay(body.get("delay_seconds")))
    return jsonify(reports.view(report)), 202, {"Location": url_for("api.show", report_id=report.id)}


@blueprint.get("")
def index() -> ResponseReturnValue:
    """List the newest reports."""
    return jsonify(reports=reports.recent())


@blueprint.get("/<uuid:report_id>")
def show(report_id: uuid.UUID) -> ResponseReturnValue:
    """Tell the state of one report, and its result."""
    report = reports.find(report_id)
    if report is None:
        abort(404, "There is no such report; old ones are removed.")
    return jsonify(reports.view(report)), 200, {"Cache-Control": "no-store"}
