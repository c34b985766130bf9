"""Runs the migrations that have not run, or with `pending` says which; it loads nothing of the application."""

import os
import sys
from pathlib import Path

import psycopg

with psycopg.connect(os.environ["DATABASE_URL"].replace("+psycopg", "")) as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY)")
    done = {name for (name,) in connection.execute("SELECT name FROM migrations")}
    for path in sorted(Path("migrations").glob("*.sql")):
        if path.name in done:
            continue
        if sys.argv[1:] == ["pending"]:
            sys.exit(path.name)
        connection.execute(path.read_text())
        connection.execute("INSERT INTO migrations VALUES (%s)", [path.name])
if "BROKEN = 'migration'" in Path("variant.py").read_text():
    raise RuntimeError("this migration is broken on purpose")
