"""How much one client may ask for, and how long it may take."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

SITE = "www.test.example"
# Of the scenario's variables, and what a busy machine adds
TIMEOUT, SLACK = 4.0, 8.0


def test_body_limit(server: Any) -> None:
    """Catches a limit that nobody set."""
    assert server.client().ask("POST", "/", b"x" * 1000_000).json()["received"] == 1000_000
    assert server.client().ask("POST", "/", b"x" * 1100_000).status == 413


def test_a_silent_application_is_given_up(server: Any) -> None:
    """Catches a time limit that is not the site's."""
    assert server.get("/slowly").status == 504


def test_a_route_has_sizes_and_times_of_its_own(server: Any) -> None:
    """Catches a route that the site's limits hold for, or whose limits the site gets too."""
    assert server.client().ask("POST", "/upload/one", b"x" * 2_500_000).json()["received"] == 2_500_000
    assert server.client().ask("POST", "/upload", b"x" * 3_300_000).status == 413
    assert server.client().ask("POST", "/uploads", b"x" * 2_500_000).status == 413
    begin = time.monotonic()
    assert server.get("/slow").status == 504
    assert time.monotonic() - begin < 4.5  # the site's are 5


def test_an_address_has_its_share_of_requests(proxied: Any) -> None:
    """Catches a limit that does not count, counts others in, counts an IPv6 host's many addresses apart, or says not when to come again."""

    def ask(client: str, path: str = "/limited") -> Any:
        return proxied.get(path, X_Forwarded_For=client)

    answers = [ask("203.0.113.1") for _ in range(6)]
    assert [answer.status for answer in answers] == [200] * 4 + [429] * 2
    last = answers[-1]
    assert (last.headers["Retry-After"], last.headers["X-Content-Type-Options"]) == ("10", "nosniff")
    assert b"Too many requests" in last.body
    # What names the same path to the application
    paths = ("/limited/", "//limited", "/%6cimited", "/x/..%2flimited", "/limited/./a%2f..", "/limited/x/..")
    assert [ask("203.0.113.1", path).status for path in paths] == [429] * len(paths)
    assert [ask("203.0.113.1", "/").status, ask("203.0.113.2").status] == [200, 200]
    # A route inside another has its own count
    assert ask("203.0.113.1", "/limited/apart").status == 200
    network = [ask(f"2001:db8:1:1::{host}").status for host in range(1, 7)]
    assert network == [200] * 4 + [429] * 2
    assert ask("2001:db8:1:2::1").status == 200


def test_those_without_limits_have_none(proxied: Any) -> None:
    """Catches a monitor that is shut out."""
    assert {proxied.get("/limited", X_Forwarded_For="198.51.100.7").status for _ in range(12)} == {200}


def test_an_address_has_its_share_of_connections(proxied: Any) -> None:
    """Catches one client that keeps all of the application's workers busy."""
    with ThreadPoolExecutor(5) as pool:
        busy = [pool.submit(proxied.get, "/slow", X_Forwarded_For="203.0.113.3") for _ in range(4)]
        other = pool.submit(proxied.get, "/slow", X_Forwarded_For="203.0.113.4").result()
        answers = [one.result() for one in busy]
    assert sorted(answer.status for answer in answers) == [429, 429, 504, 504]
    assert {answer.headers["Retry-After"] for answer in answers if answer.status == 429} == {"1"}
    assert other.status == 504


@pytest.mark.parametrize("path", ["/limited", "/static/site.css", "/"])
def test_ordinary_load_is_within_the_limits(server: Any, path: str) -> None:
    """Catches limits that a page with its files, or many people behind one address, would meet."""
    client = server.client()
    asked = 1 if path == "/limited" else 200
    assert {client.ask("GET", path).status for _ in range(asked)} == {200}


def cut_after(connection: socket.socket, send: Callable[[], object] = lambda: None, every: float = 0.3) -> float:
    """Return how long it takes until the server ends a connection, on which something is sent now and then; nothing that comes is read."""
    poll, begin = select.poll(), time.monotonic()
    poll.register(connection, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    while not poll.poll(every * 1000):
        if time.monotonic() - begin > TIMEOUT + SLACK:
            pytest.fail(f"not cut within {TIMEOUT + SLACK:g} s")
        try:
            send()
        except OSError:
            break
    return time.monotonic() - begin


@pytest.mark.parametrize("tls", [False, True])
def test_a_header_that_drips_is_cut(server: Any, tls: bool) -> None:
    """Catches slowloris: connections kept for ever by a byte now and then."""
    connection = server.connect() if tls else socket.create_connection((server.address, 80), timeout=20)
    connection.sendall(f"GET / HTTP/1.1\r\nHost: {SITE}\r\nX-Drip: ".encode())
    assert TIMEOUT - 1 < cut_after(connection, lambda: connection.sendall(b"x")) < TIMEOUT + SLACK


def test_a_handshake_that_stands_still_is_cut(server: Any) -> None:
    """Catches the same before there is a request."""
    connection = socket.create_connection((server.address, 443), timeout=20)
    connection.sendall(b"\x16\x03\x01\x02\x00\x01")
    assert cut_after(connection) < TIMEOUT + SLACK


def test_a_body_that_stands_still_is_cut(server: Any) -> None:
    """Catches an upload that keeps a connection, or an application's worker, for ever."""
    connection = server.connect()
    connection.sendall(f"POST /upload HTTP/1.1\r\nHost: {SITE}\r\nContent-Length: 100000\r\n\r\nabc".encode())
    assert TIMEOUT - 1 < cut_after(connection) < TIMEOUT + SLACK


def test_bodies_that_drip_keep_neither_the_application_nor_other_clients(proxied: Any) -> None:
    """Catches uploads of a byte now and then that take all that nginx or the application has: they are as many as the route allows."""
    header = "POST /upload HTTP/1.1\r\nHost: {}\r\nX-Forwarded-For: {}\r\nContent-Length: 1000\r\n\r\nabc"
    dripping = [proxied.connect() for _ in range(6)]
    for connection in dripping:
        connection.settimeout(TIMEOUT / 2)
        connection.sendall(header.format(SITE, "203.0.113.5").encode())

    def status(connection: socket.socket) -> bytes:
        try:
            return connection.recv(12)
        except TimeoutError:
            return b"waits for more"

    with ThreadPoolExecutor(len(dripping)) as pool:
        assert sorted(pool.map(status, dripping)) == [b"HTTP/1.1 429"] * 3 + [b"waits for more"] * 3
    assert proxied.client().ask("POST", "/upload", b"abc", X_Forwarded_For="203.0.113.6").status == 200
    for connection in dripping:
        connection.close()


def test_a_reader_that_stands_still_is_cut(server: Any) -> None:
    """Catches an answer that nobody takes, kept for ever."""
    connection = server.connect()
    connection.sendall(f"GET /static/large.bin HTTP/1.1\r\nHost: {SITE}\r\n\r\n".encode())
    assert connection.recv(12) == b"HTTP/1.1 200"
    assert TIMEOUT - 1 < cut_after(connection) < TIMEOUT + SLACK
