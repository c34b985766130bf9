"""What clients of nginx see, from the controller and over real connections."""

from __future__ import annotations

import http.client
import json
import os
import pathlib
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest

SITE, PLAIN, DOWN = "www.test.example", "plain.test.example", "down.test.example"
CA = pathlib.Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", "")) / "ca" / "ca.pem"
SECURITY_HEADERS = {
    "content-security-policy": "default-src 'self'",
    "permissions-policy": "camera=()",
    "referrer-policy": "strict-origin-when-cross-origin",
    "strict-transport-security": "max-age=63072000",
    "x-content-type-options": "nosniff",
}
Converge = Callable[..., Any]
Eventually = Callable[..., Any]


def context(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(CA))
    if version:
        made.set_ciphers("ALL:@SECLEVEL=0")
        made.minimum_version = made.maximum_version = version
    return made


def connect(address: str, name: str | None, made: ssl.SSLContext) -> ssl.SSLSocket:
    made.check_hostname = name is not None
    return made.wrap_socket(socket.create_connection((address, 443), timeout=20), server_hostname=name)


class Answer:
    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.body = answer.read()

    def json(self) -> Any:
        return json.loads(self.body)


class Client(http.client.HTTPConnection):
    """A kept-alive HTTPS connection to an address, by a site's name."""

    def __init__(self, address: str, name: str = SITE) -> None:
        super().__init__(name, 443)
        self.sock = connect(address, name, context())

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        self.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
        return Answer(self.getresponse())


def get(address: str, path: str, name: str = SITE, **headers: str) -> Answer:
    return Client(address, name).ask("GET", path, None, **headers)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_current_tls_is_accepted(address: str, version: ssl.TLSVersion) -> None:
    """Catches a certificate that clients of the CA refuse, and a version that went missing."""
    assert connect(address, SITE, context(version)).version() == version.name.replace("_", ".")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(address: str, version: ssl.TLSVersion) -> None:
    """Catches old TLS versions that a default lets in."""
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        connect(address, SITE, context(version))


def test_weak_ciphers_are_refused(address: str) -> None:
    """Catches a cipher list without forward secrecy."""
    made = context(ssl.TLSVersion.TLSv1_2)
    made.set_ciphers("AES128-SHA:AES128-GCM-SHA256:ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        connect(address, SITE, made)


@pytest.mark.parametrize("name", ["unknown.test.example", None])
def test_unknown_names_get_no_certificate(address: str, name: str | None) -> None:
    """Catches a default site that shows its certificate to scanners."""
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        connect(address, name, context())


@pytest.mark.usefixtures("as_root")
def test_the_package_has_started_nothing(host: Any) -> None:
    """Catches Debian's default page, shown until the role has configured nginx, and a policy-rc.d left for other packages."""
    assert "unmet condition" in host.check_output("journalctl -u nginx.service -o cat --no-pager").splitlines()[0]
    assert not host.file("/usr/sbin/policy-rc.d").exists


@pytest.mark.parametrize("tls", [False, True])
def test_unknown_hosts_get_no_content(address: str, tls: bool) -> None:
    """Catches a default page, over HTTP and behind a known name's handshake."""
    connection = connect(address, SITE, context()) if tls else socket.create_connection((address, 80), timeout=20)
    connection.sendall(b"GET / HTTP/1.1\r\nHost: unknown.test.example\r\n\r\n")
    try:
        answer = connection.recv(100)
    except ConnectionResetError:
        answer = b""
    assert answer == b""


def test_http_redirects_to_the_public_port(address: str) -> None:
    """Catches a redirect that loses the host, the path, the query or the mapped port."""
    connection = http.client.HTTPConnection(address, 80, timeout=20)
    connection.request("GET", "/a%20b?c=d", headers={"Host": SITE})
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Location"]) == (301, f"https://{SITE}:8443/a%20b?c=d")


def test_http2_is_negotiated(address: str) -> None:
    """Catches the wrong spelling of http2 for the release's nginx."""
    made = context()
    made.set_alpn_protocols(["h2", "http/1.1"])
    assert connect(address, SITE, made).selected_alpn_protocol() == "h2"


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
def test_every_status_has_the_security_headers(address: str, name: str, path: str, status: int) -> None:
    """Catches a location whose own add_header puts the others aside, and a header doubled with the application's."""
    answer = get(address, path, name)
    assert answer.status == status
    assert answer.headers["Server"] == "nginx"
    assert len(answer.headers["X-Request-ID"]) == 32
    for header, value in SECURITY_HEADERS.items():
        found = answer.headers.get_all(header) or []
        assert len(found) == 1, header
        assert found[0].startswith(value), header
    if status == 502:
        assert b"Back in a moment" in answer.body


def test_a_header_may_be_left_to_the_application(address: str) -> None:
    """Catches a site's headers that do not go over the common ones."""
    assert get(address, "/").headers.get_all("X-Frame-Options") == ["SAMEORIGIN"]
    assert get(address, "/", PLAIN).headers.get_all("X-Frame-Options") == ["DENY"]


@pytest.mark.parametrize("name", ["site.css", "old.css"])
@pytest.mark.parametrize(("accepted", "encoding"), [("br, gzip", "br"), ("gzip", "gzip"), ("identity", None)])
def test_static_files_come_precompressed(address: str, name: str, accepted: str, encoding: str | None) -> None:
    """Catches a missing brotli module, files compressed at each request, and one of a further folder that is sent in another way."""
    answer = get(address, f"/static/{name}", Accept_Encoding=accepted)
    assert answer.headers.get("Content-Encoding") == encoding
    assert answer.headers["Content-Type"] == "text/css"
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert (len(answer.body) > 1000) == (encoding is None)


def test_further_folders_hold_what_the_first_has_not(address: str) -> None:
    """Catches the older one of two files of a name, and further folders that nobody named."""
    assert b"black" in get(address, "/static/site.css", Accept_Encoding="identity").body
    assert b"white" in get(address, "/static/old.css", Accept_Encoding="identity").body
    assert [get(address, path).status for path in ("/static/", "/static/none.css", "/mutable/old.css")] == [404] * 3


def test_cache_headers_fit_what_they_stand_on(address: str) -> None:
    """Catches a missing file, or one that changes, kept by browsers for a year."""
    assert get(address, "/static/none.css").headers.get("Cache-Control") is None
    assert get(address, "/mutable/site.css").headers["Cache-Control"] == "no-cache"


def test_static_folder_does_not_leak_its_neighbours(address: str) -> None:
    """Catches a URL that reaches out of its folder."""
    beside = ("/static../upstream.py", "/static/../upstream.py", "/static/%2e%2e/upstream.py", "/static/%252e%252e/upstream.py")
    for path in (*beside, "/static/srv/shop/upstream.py", "/static/%0a/../../upstream.py", "/static/x/..%2f..%2fupstream.py"):
        assert b"socketserver" not in get(address, path).body


def test_the_application_sees_what_nginx_knows(address: str) -> None:
    """Catches a client that chooses its own address, scheme, host or request id."""
    answer = get(address, "/?secret=1", X_Request_ID="mine", X_Forwarded_For="1.2.3.4", X_Forwarded_Host="evil", Forwarded="for=1.2.3.4")
    seen = {key.lower(): value for key, value in answer.json()["headers"].items()}
    assert seen["x-request-id"] == answer.headers["X-Request-ID"] != "mine"
    assert (seen["host"], seen["x-forwarded-host"]) == (f"{SITE}:8443",) * 2
    assert (seen["x-forwarded-proto"], seen["x-forwarded-port"]) == ("https", "8443")
    assert "1.2.3.4" not in json.dumps(seen)
    assert answer.json()["path"] == "/?secret=1"


def test_the_log_is_json_without_query(host: Any, address: str, eventually: Eventually) -> None:
    """Catches a log line that no program reads, that lacks the request id, or that keeps a token."""
    agent = 'quote " backslash \\ end'
    answer = get(address, "/logged?token=hush", User_Agent=agent)
    request_id = answer.headers["X-Request-ID"]
    with host.sudo():
        line = eventually(lambda: host.run(f"grep {request_id} /var/log/nginx/access.log").stdout.strip())
    entry = json.loads(line)
    assert (entry["path"], entry["status"], entry["agent"], entry["upstream_status"]) == ("/logged", "200", agent, "200")
    assert "hush" not in line


def test_upstream_connections_are_reused_and_bounded(address: str, eventually: Eventually) -> None:
    """Catches an upstream without keepalive, and one whose connections would outlive a switch of releases."""
    client = Client(address)
    # each worker process keeps its own connections: one client connection stays with one worker
    first = [client.ask("GET", "/").json()["connection"] for _ in range(5)]
    assert len(set(first)) == 1
    eventually(lambda: client.ask("GET", "/").json()["connection"] != first[0], within=15)


def test_body_limit(address: str) -> None:
    """Catches a limit that nobody set."""
    assert Client(address).ask("POST", "/", b"x" * 1000_000).json()["received"] == 1000_000
    assert Client(address).ask("POST", "/", b"x" * 1100_000).status == 413


def test_a_silent_application_is_given_up(address: str) -> None:
    """Catches a time limit that is not the site's."""
    assert get(address, "/slow").status == 504


def test_extra_text_lands_in_its_site(address: str) -> None:
    """Catches extra settings lost or given to every site."""
    assert get(address, "/hello", PLAIN).body == b"hello\n"
    assert get(address, "/hello").json()["path"] == "/hello"


def test_a_closed_site_says_so(host: Any, address: str) -> None:
    """Catches a maintenance page that needs a reload, that a closed site's health gets too, or that another site gets."""
    client = Client(address)
    assert client.ask("GET", "/").status == 200
    with host.sudo():
        host.check_output("mkdir -p /var/lib/groundcrew/maintenance && touch /var/lib/groundcrew/maintenance/shop")
    try:
        page, api = client.ask("GET", "/"), client.ask("POST", "/api/reports", b"{}")
        health = client.ask("GET", "/healthz")
        other = get(address, "/hello", PLAIN)
    finally:
        with host.sudo():
            host.check_output("rm /var/lib/groundcrew/maintenance/shop")
    assert [(answer.status, answer.headers["Retry-After"]) for answer in (page, api)] == [(503, "300")] * 2
    assert b"Closed for maintenance" in page.body
    assert api.json() == {"error": "maintenance"}
    assert (health.status, other.status) == (200, 200)
    assert client.ask("GET", "/").status == 200


def test_the_application_sleeps_with_no_harm(host: Any, address: str) -> None:
    """Catches an application that answers no more after its restart."""
    with host.sudo():
        host.check_output("systemctl restart upstream.service")
    assert get(address, "/").status == 200


def test_killed_nginx_comes_back(host: Any, address: str, eventually: Eventually) -> None:
    """Catches a unit without a restart policy."""
    with host.sudo():
        pid = host.check_output("systemctl show -P MainPID nginx.service")
        host.check_output("systemctl kill --kill-whom=main --signal=KILL nginx.service")
        # An answer alone may still be one of the killed master's workers
        eventually(lambda: host.check_output("systemctl show -P MainPID nginx.service") not in {"0", pid})
    assert get(address, "/").status == 200


def test_logs_rotate_and_nginx_goes_on(host: Any, address: str, eventually: Eventually) -> None:
    """Catches a sandbox in which nginx cannot open its logs anew, by rotation or by reload."""
    with host.sudo():
        host.check_output("logrotate --force /etc/logrotate.d/nginx")
        host.check_output("systemctl reload nginx.service")
        request_id = eventually(lambda: get(address, "/").headers["X-Request-ID"])
        eventually(lambda: request_id in host.file("/var/log/nginx/access.log").content_string)


def test_security_score(exposure: Any) -> None:
    """Catches a sandbox that went missing."""
    assert exposure("nginx.service") <= 3.0


def test_broken_configuration_stays_out(host: Any, address: str, converge: Converge) -> None:
    """Catches a configuration that lands although nginx refuses it, and would keep it down after a boot."""
    before = host.file("/etc/nginx/nginx.conf").sha256sum
    result = converge(nginx_extra_settings={"no_such_setting": "on"})
    assert result.returncode == 2
    assert 'unknown directive "no_such_setting"' in result.stdout + result.stderr
    assert host.file("/etc/nginx/nginx.conf").sha256sum == before
    assert get(address, "/").status == 200


def test_a_renewed_certificate_is_served(host: Any, address: str, converge: Converge) -> None:
    """Catches a certificate file that changes on disk and is never read."""
    with host.sudo():
        host.check_output("touch /etc/ssl/groundcrew/default/fullchain.pem")
        main = host.check_output("systemctl show -P MainPID nginx.service")
        result = converge()
        assert result.returncode == 0, result.stdout
        assert "Reload nginx" in result.stdout
        assert "Restart nginx" not in result.stdout
        assert host.check_output("systemctl show -P MainPID nginx.service") == main
    assert get(address, "/").status == 200
