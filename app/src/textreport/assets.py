"""Static files: each URL carries its content's hash, so that caches may keep it for ever."""

from __future__ import annotations

import hashlib
from pathlib import Path

from flask import Flask, request, url_for

YEAR = 31_536_000


def init_app(app: Flask) -> None:
    """Give templates `asset(name)`, and caches a year for what has the hash that it was asked by."""
    folder = Path(app.static_folder or "")
    hashes = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        for path in folder.rglob("*")
        if path.is_file()
    }

    @app.template_global()
    def asset(name: str) -> str:
        return url_for("static", filename=name, v=hashes[name])

    def max_age(filename: str | None) -> int | None:
        # while a release moves from host to host, one that it has yet to reach is asked for the newer file
        return YEAR if filename in hashes and request.args.get("v") == hashes[filename] else None

    app.get_send_file_max_age = max_age  # type: ignore[method-assign]
