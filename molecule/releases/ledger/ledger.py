"""A ledger: each POST is a row, each numbered task leaves a row. variant.py says which release this is, and how it is broken."""

import os
import threading
import time

import psycopg
import variant
from celery import Celery
from flask import Flask, Response, jsonify, request

app = Flask(__name__)
# Threads that answer a request
busy: set[int] = set()
celery = Celery("ledger", broker=os.environ["BROKER_URL"])
celery.conf.update(
    task_ignore_result=True,
    broker_transport_options={"visibility_timeout": 60, "unacked_restore_interval": 5, "unacked_restore_throttle": 1},
)


def query(statement: str, *values: object) -> list[tuple[object, ...]]:
    with psycopg.connect(os.environ["DATABASE_URL"].replace("+psycopg", "")) as connection:
        cursor = connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


def work(number: int, seconds: float) -> None:
    # What the task takes
    time.sleep(seconds)
    query("INSERT INTO results VALUES (%s, %s)", number, variant.NAME)


@celery.task
def settle(number: int) -> None:
    query("UPDATE entries SET state = 'done' WHERE number = %s", number)


for name in variant.TASKS:
    celery.task(name=name, bind=False)(work)


@app.get("/")
def page() -> str:
    return variant.NAME


@app.get("/healthz")
def health() -> tuple[str, int]:
    return "", 503 if variant.BROKEN == "health" else 200


@app.before_request
def begin() -> None:
    busy.add(threading.get_ident())


@app.teardown_request
def end(_: BaseException | None) -> None:
    busy.discard(threading.get_ident())


@app.get("/late")
def late() -> str:
    # Asked only once the release is live. A crash takes along what its process answers, which nobody could save: it waits for a moment
    # without visitors.
    while variant.BROKEN == "crash":
        if len(busy) == 1:
            os._exit(1)
        # Between two looks; it ends by its own crash
        time.sleep(0.01)
    return ""


@app.get("/nap")
def nap() -> str:
    # A request that takes its time
    time.sleep(2)
    return variant.NAME


@app.post("/entries")
def enter() -> tuple[Response, int, dict[str, str]]:
    number = int(request.get_json()["number"])
    query("INSERT INTO entries (number) VALUES (%s)", number)
    if number < 0:
        settle.delay(number)
    return jsonify(state="queued"), 202, {"Location": f"/entries/{number}"}


@app.get("/entries/<number>")
def entry(number: str) -> Response:
    ((state,),) = query("SELECT state FROM entries WHERE number = %s ORDER BY state LIMIT 1", int(number))
    return jsonify(state=state)


@app.post("/tasks")
def tasks() -> tuple[str, int]:
    given = request.get_json()
    for number in range(given["first"], given["last"] + 1):
        celery.send_task(given["name"], args=[number, given["seconds"]])
    return "", 202


@app.get("/entries")
def entries() -> Response:
    return jsonify(query("SELECT number, count(*) FROM entries GROUP BY number"))


@app.get("/results")
def results() -> Response:
    return jsonify(query("SELECT number, count(*) FROM results GROUP BY number"))


@app.get("/shares")
def shares() -> Response:
    return jsonify(dict(query("SELECT release, count(*) FROM results GROUP BY release")))
