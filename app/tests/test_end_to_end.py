"""The whole way: a real worker, killed too."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from flask import Flask
from flask.testing import FlaskClient

from tests.conftest import Worker, wait_for


def finished(client: FlaskClient, place: str) -> dict[str, Any]:
    """Return the report once its state is final."""

    def report() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(place).json or {}
        return found if found["state"] in ("done", "failed") else None

    return wait_for(report)  # type: ignore[no-any-return]


def test_report_is_computed(client: FlaskClient, worker: Worker, app: Flask) -> None:
    """A text becomes a report; the request id goes into the worker's log, the text does not."""
    made = client.post(
        "/api/reports", json={"text": "Zanzibar is far. Far away."}, headers={"X-Request-ID": "e2e-request"}
    )
    report = finished(client, made.headers["Location"])
    assert report["state"] == "done"
    assert report["result"]["words"] == 5
    assert report["finished_at"] is not None
    assert client.get("/api/reports").text.count('"state":"done"') == 1
    page = client.get(report["links"]["page"])
    assert ">done</span>" in page.text
    assert "zanzibar" in page.text

    app.extensions["celery"].send_task("textreport.heartbeat", queue="maintenance")
    wait_for(lambda: client.get("/readyz").status_code == 200)

    log = worker.log.read_text()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    of_task = [line for line in lines if line.get("task_name") == "textreport.compute"]
    assert {"report started, attempt 1", "report done"} <= {line["message"] for line in of_task}
    assert {line["request_id"] for line in of_task} == {"e2e-request"}
    assert all(line["task_id"] for line in of_task)
    assert "anzibar" not in log


def test_killed_worker_process_loses_no_task(client: FlaskClient, worker: Worker) -> None:
    """The process that computes is killed; another computes the report again."""
    place = client.post("/api/reports", json={"text": "a b c", "delay_seconds": 2}).headers["Location"]
    wait_for(lambda: (client.get(place).json or {})["state"] == "running")
    for child in worker.children():
        os.kill(child, signal.SIGKILL)
    report = finished(client, place)
    assert (report["state"], report["result"]["words"]) == ("done", 3)
    assert "attempt 2" in worker.log.read_text()
