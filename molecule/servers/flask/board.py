"""A page, a static file and a table, for every server that runs WSGI applications."""

import os
import sqlite3
import time

from flask import Flask, jsonify, url_for
from flask.typing import ResponseReturnValue
from werkzeug.middleware.proxy_fix import ProxyFix


def create_app() -> Flask:
    app = Flask(__name__)
    # For the servers that leave X-Forwarded-Proto to the application
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]

    @app.cli.command("migrate")
    def migrate() -> None:
        with sqlite3.connect(os.environ["DATABASE"]) as database:
            database.execute("CREATE TABLE IF NOT EXISTS notes (text)")

    @app.get("/")
    def page() -> ResponseReturnValue:
        with sqlite3.connect(os.environ["DATABASE"]) as database:
            ((count,),) = database.execute("SELECT count(*) FROM notes").fetchall()
        return jsonify(notes=count, static=url_for("static", filename="site.css", _external=True))

    @app.get("/nap")
    def nap() -> ResponseReturnValue:
        # A request in progress, for the tests to stop the server under
        time.sleep(1)
        return "rested"

    @app.get("/healthz")
    def health() -> ResponseReturnValue:
        return "fine"

    return app
