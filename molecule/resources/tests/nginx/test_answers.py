"""What clients of nginx get, and what the application and the log get to know."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest

SITE, PLAIN, DOWN = "www.test.example", "plain.test.example", "down.test.example"
SECURITY_HEADERS = {
    "content-security-policy": "default-src 'self'",
    "permissions-policy": "camera=()",
    "referrer-policy": "strict-origin-when-cross-origin",
    "strict-transport-security": "max-age=63072000",
    "x-content-type-options": "nosniff",
}


def test_http_redirects_to_the_public_port(server: Any) -> None:
    """Catches a redirect that loses the host, the path, the query or the mapped port."""
    connection = http.client.HTTPConnection(server.address, 80, timeout=20)
    connection.request("GET", "/a%20b?c=d", headers={"Host": SITE})
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Location"]) == (301, f"https://{SITE}:8443/a%20b?c=d")


@pytest.mark.parametrize(
    ("name", "path", "status"),
    [
        (SITE, "/", 200),
        (SITE, "/status/404", 404),
        (SITE, "/status/503", 503),
        (SITE, "/static/site.css", 200),
        (SITE, "/static/old.css", 200),
        (SITE, "/static/none.css", 404),
        (PLAIN, "/", 404),
        (DOWN, "/", 502),
    ],
)
def test_every_status_has_the_security_headers(server: Any, name: str, path: str, status: int) -> None:
    """Catches a location whose own add_header puts the others aside, and a header doubled with the application's."""
    answer = server.get(path, name)
    assert answer.status == status
    assert answer.headers["Server"] == "nginx"
    assert len(answer.headers["X-Request-ID"]) == 32
    for header, value in SECURITY_HEADERS.items():
        found = answer.headers.get_all(header) or []
        assert len(found) == 1, header
        assert found[0].startswith(value), header
        assert "unsafe-inline" not in found[0]
    if status == 502:
        assert b"Back in a moment" in answer.body


def test_a_header_may_be_left_to_the_application(server: Any) -> None:
    """Catches a site's headers that do not go over the common ones."""
    assert server.get("/").headers.get_all("X-Frame-Options") == ["SAMEORIGIN"]
    assert server.get("/", PLAIN).headers.get_all("X-Frame-Options") == ["DENY"]


@pytest.mark.parametrize("name", ["site.css", "old.css"])
@pytest.mark.parametrize(("accepted", "encoding"), [("br, gzip", "br"), ("gzip", "gzip"), ("identity", None)])
def test_static_files_come_precompressed(server: Any, name: str, accepted: str, encoding: str | None) -> None:
    """Catches a missing brotli module, files compressed at each request, and one of a further folder that is sent in another way."""
    answer = server.get(f"/static/{name}", Accept_Encoding=accepted)
    assert answer.headers.get("Content-Encoding") == encoding
    assert answer.headers["Content-Type"] == "text/css"
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert (len(answer.body) > 1000) == (encoding is None)


def test_further_folders_hold_what_the_first_has_not(server: Any) -> None:
    """Catches the older one of two files of a name, and further folders that nobody named."""
    assert b"black" in server.get("/static/site.css", Accept_Encoding="identity").body
    assert b"white" in server.get("/static/old.css", Accept_Encoding="identity").body
    assert [server.get(path).status for path in ("/static/", "/static/none.css", "/mutable/old.css")] == [404] * 3


def test_cache_headers_fit_what_they_stand_on(server: Any) -> None:
    """Catches a missing file, or one that changes, kept by browsers for a year."""
    assert server.get("/static/none.css").headers.get("Cache-Control") is None
    assert server.get("/mutable/site.css").headers["Cache-Control"] == "no-cache"


def test_static_folder_does_not_leak_its_neighbours(server: Any) -> None:
    """Catches a URL that reaches out of its folder."""
    beside = ("/static../upstream.py", "/static/../upstream.py", "/static/%2e%2e/upstream.py", "/static/%252e%252e/upstream.py")
    for path in (*beside, "/static/srv/shop/upstream.py", "/static/%0a/../../upstream.py", "/static/x/..%2f..%2fupstream.py"):
        assert b"socketserver" not in server.get(path).body


def test_the_application_sees_what_nginx_knows(server: Any) -> None:
    """Catches a client that chooses its own address, scheme, host or request id."""
    answer = server.get("/?secret=1", X_Request_ID="mine", X_Forwarded_For="1.2.3.4", X_Forwarded_Host="evil", Forwarded="for=1.2.3.4")
    seen = {key.lower(): value for key, value in answer.json()["headers"].items()}
    assert seen["x-request-id"] == answer.headers["X-Request-ID"] != "mine"
    assert (seen["host"], seen["x-forwarded-host"]) == (f"{SITE}:8443",) * 2
    assert (seen["x-forwarded-proto"], seen["x-forwarded-port"]) == ("https", "8443")
    assert "1.2.3.4" not in json.dumps(seen)
    assert answer.json()["path"] == "/?secret=1"


def test_the_log_is_json_without_query(host: Any, server: Any, eventually: Any) -> None:
    """Catches a log line that no program reads, that lacks the request id, or that keeps a token."""
    agent = 'quote " backslash \\ end'
    answer = server.get("/logged?token=hush", User_Agent=agent)
    request_id = answer.headers["X-Request-ID"]
    with host.sudo():
        line = eventually(lambda: host.run(f"grep {request_id} /var/log/nginx/access.log").stdout.strip())
    entry = json.loads(line)
    assert (entry["path"], entry["status"], entry["agent"], entry["upstream_status"]) == ("/logged", "200", agent, "200")
    assert "hush" not in line


def test_upstream_connections_are_reused_and_bounded(server: Any, eventually: Any) -> None:
    """Catches an upstream without keepalive, and one whose connections would outlive a switch of releases."""
    client = server.client()
    # each worker process keeps its own connections: one client connection stays with one worker
    first = [client.ask("GET", "/").json()["connection"] for _ in range(5)]
    assert len(set(first)) == 1
    eventually(lambda: client.ask("GET", "/").json()["connection"] != first[0], within=15)


def test_extra_text_lands_in_its_site(server: Any) -> None:
    """Catches extra settings lost or given to every site."""
    assert server.get("/hello", PLAIN).body == b"hello\n"
    assert server.get("/hello").json()["path"] == "/hello"
