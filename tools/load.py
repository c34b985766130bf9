"""Ask a site at a fixed rate, whatever it answers: new and kept-alive connections, GET and POST, some requests that take their time.

python -m tools.load https://localhost:8443 --ca .local/ca.pem --seconds 10 --get / --get /healthz --rate 50

A request is due at its time and counts from there, so a site that stands still cannot slow down the questions. Nothing is tried again.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import math
import queue
import select
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tools.console import Problem, run_command, say

# Seconds. As any client does, it gives an idle connection up before the web server may (role nginx: 60), lest it sends into the end of it.
LONGEST_IDLE = 30


@dataclass(frozen=True)
class Request:
    """What is asked; `{number}` in path or body is the request's own number."""

    method: str
    path: str
    body: str = ""


@dataclass(frozen=True)
class Answer:
    """How a request went: when it was due (Unix time), how long it took from there, its status (0: none), what went wrong, and the place
    of what it made."""

    number: int
    due: float
    seconds: float
    request: Request
    kept_alive: bool
    status: int
    error: str = ""
    location: str = ""

    @property
    def good(self) -> bool:
        return 200 <= self.status < 400


class Client(http.client.HTTPSConnection):
    """A connection that may go to an address of its own choice, by the site's name."""

    def __init__(self, host: str, port: int, address: str, context: ssl.SSLContext, timeout: float) -> None:
        super().__init__(host, port, timeout=timeout, context=context)
        self.address = address
        self.tls = context

    def connect(self) -> None:
        raw = http.client.socket.create_connection((self.address, self.port), self.timeout)  # type: ignore[attr-defined]
        raw.setsockopt(http.client.socket.IPPROTO_TCP, http.client.socket.TCP_NODELAY, 1)  # type: ignore[attr-defined]
        self.sock = self.tls.wrap_socket(raw, server_hostname=self.host)

    def dropped(self) -> bool:
        """Whether the other end has closed an idle connection, which any client looks for before it uses one again."""
        if self.sock is None:
            return False
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))


@dataclass
class Load:
    """Runs in threads of this process from `start` to `stop`, and keeps every answer."""

    url: str
    requests: Sequence[Request]
    rate: float
    ca_file: Path | None = None
    address: str = ""
    threads: int = 32
    timeout: float = 30
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        where = urlsplit(self.url)
        if where.scheme != "https" or not where.hostname:
            raise Problem(f"{self.url!r} is no https:// address", "Such as https://localhost:8443")
        self.host, self.port = where.hostname, where.port or 443
        self.context = ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
        self.due: queue.SimpleQueue[tuple[int, float, Request] | None] = queue.SimpleQueue()
        self.stopping = threading.Event()
        self.running: list[threading.Thread] = []

    def client(self) -> Client:
        return Client(self.host, self.port, self.address or self.host, self.context, self.timeout)

    def start(self) -> None:
        self.running = [threading.Thread(target=self.ask, args=(number % 2 == 0,), daemon=True) for number in range(self.threads)]
        self.running.append(threading.Thread(target=self.schedule, daemon=True))
        for thread in self.running:
            thread.start()

    def stop(self) -> list[Answer]:
        """End the questions; returns once every one of them is answered."""
        self.stopping.set()
        for thread in self.running:
            thread.join()
        return sorted(self.answers, key=lambda answer: answer.number)

    def schedule(self) -> None:
        begin = time.time()
        for number, request in enumerate(itertools.cycle(self.requests)):
            due = begin + number / self.rate
            # Until the next one is due
            if self.stopping.wait(max(0.0, due - time.time())):
                break
            self.due.put((number, due, request))
        for _ in range(self.threads):
            self.due.put(None)

    def ask(self, keep_alive: bool) -> None:
        client, used = self.client(), time.monotonic()
        while (found := self.due.get()) is not None:
            number, due, request = found
            if not keep_alive or time.monotonic() - used > LONGEST_IDLE or client.dropped():
                client.close()
                client = self.client()
            status, error, location = 0, "", ""
            try:
                body = request.body.replace("{number}", str(number)) or None
                headers = {"Content-Type": "application/json"} if body else {}
                client.request(request.method, request.path.replace("{number}", str(number)), body, headers)
                answer = client.getresponse()
                answer.read()
                status, location = answer.status, answer.headers["Location"] or ""
            except (OSError, http.client.HTTPException) as failure:
                error = f"{type(failure).__name__}: {failure}"
                client.close()
                client = self.client()
            self.answers.append(Answer(number, due, time.time() - due, request, keep_alive, status, error, location))
            used = time.monotonic()
            if not keep_alive:
                client.close()


def percentile(values: Iterable[float], part: float) -> float:
    """The value that this part of them does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)] if ordered else 0.0


def summary(answers: Sequence[Answer]) -> dict[str, object]:
    """What to say of the answers: how many, how many failed and how, and how long they took."""
    failures = Counter(answer.error or f"status {answer.status}" for answer in answers if not answer.good)
    seconds = [answer.seconds for answer in answers]
    return {
        "sent": len(answers),
        "failed": sum(failures.values()),
        "failures": dict(failures.most_common(5)),
        "p50": round(percentile(seconds, 0.5), 4),
        "p99": round(percentile(seconds, 0.99), 4),
        "longest": round(max(seconds, default=0.0), 4),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--ca", type=Path, help="CA certificate of the site's certificate")
    parser.add_argument("--address", default="", help="where to connect, if not to the site's name")
    parser.add_argument("--rate", type=float, default=50, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--get", action="append", default=[], metavar="PATH")
    parser.add_argument("--post", action="append", default=[], metavar="PATH=JSON", help="{number} is the request's number")
    parser.add_argument("--answers", type=Path, help="write each answer to this file, as a line of JSON")
    given = parser.parse_args()
    requests = [Request("GET", path) for path in given.get]
    requests += [Request("POST", *post.partition("=")[::2]) for post in given.post]
    load = Load(given.url, requests or [Request("GET", "/")], given.rate, given.ca, given.address)
    load.start()
    with contextlib.suppress(KeyboardInterrupt):
        # How long the load lasts, no wait for anything
        time.sleep(given.seconds)
    answers = load.stop()
    if given.answers:
        given.answers.write_text("".join(f"{json.dumps(asdict(answer))}\n" for answer in answers), encoding="utf-8")
    told = summary(answers)
    say(json.dumps(told))
    return int(bool(told["failed"]))


if __name__ == "__main__":
    sys.exit(run_command(main))
