"""Errors: JSON for programs, a page for people, the request id in both."""

from __future__ import annotations

from flask import Flask, Response, current_app, g, jsonify, make_response, render_template, request
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException, InternalServerError

from textreport.reports import InvalidTextError, QueueUnavailableError

UNAVAILABLE = (
    "Reports cannot be computed right now. Your text was not queued: please send it again in a minute."
)
TOO_LARGE = "The request is larger than this site takes."
EXPIRED = "This page was open for too long or cookies are off. Your text is still here: please send it again."


def init_app(app: Flask) -> None:
    """Register the handlers."""
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unexpected)
    app.register_error_handler(InvalidTextError, lambda error: _answer(error.status, str(error), form=True))
    app.register_error_handler(QueueUnavailableError, lambda _: _answer(503, UNAVAILABLE, form=True))
    app.register_error_handler(CSRFError, lambda _: _answer(400, EXPIRED, form=True))


def _http(error: HTTPException) -> Response:
    if error.code is None or error.code < 400:
        return make_response(error)
    response = _answer(error.code, TOO_LARGE if error.code == 413 else error.description or error.name)
    for name, value in error.get_headers():
        if name == "Allow":  # a 405 says what is allowed
            response.headers[name] = value
    return response


def _unexpected(error: Exception) -> Response:
    current_app.logger.error("unexpected error", exc_info=error)
    return _answer(500, InternalServerError.description)


def _answer(status: int, message: str, form: bool = False) -> Response:
    """Answer in the caller's language; `form` shows the text form again, with the text."""
    request_id = g.get("request_id")
    if request.path.startswith("/api/"):
        return make_response(jsonify(error=message, status=status, request_id=request_id), status)
    if form:
        page = render_template("index.html", problem=message, text=request.form.get("text", ""))
    else:
        page = render_template("error.html", status=status, problem=message, request_id=request_id)
    return make_response(page, status)
