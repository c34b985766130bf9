"""A shop: orders are rows, packed by a task. A plain folder with pinned requirements, as many applications are."""

import os

import psycopg
from celery import Celery
from flask import Flask, Response, jsonify, request, url_for

app = Flask(__name__)
celery = Celery("shop", broker=os.environ["BROKER_URL"])


def query(statement: str, *values: object) -> list[tuple[object, ...]]:
    with psycopg.connect(os.environ["DATABASE_URL"].replace("+psycopg", "")) as connection:
        cursor = connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


def migrate() -> None:
    query("CREATE TABLE IF NOT EXISTS orders (id serial PRIMARY KEY, item text NOT NULL, state text NOT NULL DEFAULT 'queued')")


@celery.task
def pack(order: int) -> None:
    query("UPDATE orders SET state = 'done' WHERE id = %s", order)


@app.get("/")
def page() -> str:
    ((count,),) = query("SELECT count(*) FROM orders")
    return f"{os.environ['GREETING']} {url_for('static', filename='site.css')} {request.scheme} {count}"


@app.get("/healthz")
def health() -> str:
    return "fine"


@app.post("/api/orders")
def order() -> tuple[Response, int, dict[str, str]]:
    ((number,),) = query("INSERT INTO orders (item) VALUES (%s) RETURNING id", request.get_json()["item"])
    pack.delay(number)
    return jsonify(state="queued"), 202, {"Location": url_for("state", number=number)}


@app.get("/api/orders/<int:number>")
def state(number: int) -> Response:
    ((found,),) = query("SELECT state FROM orders WHERE id = %s", number)
    return jsonify(state=found)
