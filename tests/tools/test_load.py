"""The load generator: it keeps its rate, tells every failure, and counts from when a request was due."""

from __future__ import annotations

import itertools
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.bad_input_examples import key_pair
from tools.load import Load, Request, percentile, summary


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: set[int]
    bodies: list[bytes]

    def do_GET(self) -> None:
        self.seen.add(self.client_address[1])
        self.bodies.append(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        if self.path == "/reset":
            self.connection.shutdown(2)
            self.close_connection = True
            return
        if self.path == "/slow":
            time.sleep(0.3)  # what the test measures
        self.send_response(503 if self.path == "/ill" else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()
        # Without a word of it
        self.close_connection = self.path == "/last"

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path, type[Handler]]]:
    certificate, key = key_pair("localhost")
    (tmp_path / "cert.pem").write_text(certificate)
    (tmp_path / "key.pem").write_text(key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    handler = type("Answers", (Handler,), {"seen": set(), "bodies": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"https://localhost:{server.server_port}", tmp_path / "cert.pem", handler
        server.shutdown()


def run(site: tuple[str, Path, type[Handler]], requests: list[Request], seconds: float = 0.5, rate: float = 40) -> Load:
    load = Load(site[0], requests, rate, site[1], address="127.0.0.1", threads=4, timeout=5)
    load.start()
    time.sleep(seconds)  # how long the load lasts
    load.stop()
    return load


def test_it_keeps_its_rate_on_new_and_kept_connections(site: tuple[str, Path, type[Handler]]) -> None:
    answers = run(site, [Request("GET", "/"), Request("POST", "/", '{"id": {number}}')]).answers
    assert len(answers) >= 15
    due = sorted(answer.due for answer in answers)
    assert [round(later - earlier, 4) for earlier, later in itertools.pairwise(due)] == [1 / 40] * (len(due) - 1)
    assert all(answer.good for answer in answers)
    assert {answer.kept_alive for answer in answers} == {True, False}
    assert len(site[2].seen) < len(answers)
    assert b'{"id": 1}' in site[2].bodies


def test_a_connection_that_was_closed_is_not_used_again(site: tuple[str, Path, type[Handler]]) -> None:
    """Catches failures that no client would see, for it looks before it asks."""
    answers = run(site, [Request("GET", "/last")]).answers
    assert any(answer.kept_alive for answer in answers)
    assert [answer for answer in answers if not answer.good] == []


def test_every_failure_is_told(site: tuple[str, Path, type[Handler]]) -> None:
    told = summary(run(site, [Request("GET", "/"), Request("GET", "/ill"), Request("GET", "/reset")]).stop())
    failures = told["failures"]
    assert isinstance(failures, dict)
    assert failures["status 503"] == pytest.approx(int(str(told["sent"])) / 3, abs=1)
    assert len(failures) == 2


def test_a_site_that_stands_still_does_not_slow_down_the_questions(site: tuple[str, Path, type[Handler]]) -> None:
    """Catches a time that is counted from when a thread was free."""
    answers = run(site, [Request("GET", "/slow")], rate=60).stop()
    assert len(answers) >= 25
    assert max(answer.seconds for answer in answers) > 1


def test_percentiles() -> None:
    values = [number / 100 for number in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile([], 0.5), percentile([3], 0.99)) == (0.5, 0.99, 0.0, 3)
