"""Who gets which handshake."""

from __future__ import annotations

import json
import socket
import ssl
from typing import Any

import pytest

from tools import audit

SITE = "www.test.example"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_current_tls_is_accepted(server: Any, version: ssl.TLSVersion) -> None:
    """Catches a certificate that clients of the CA refuse, and a version that went missing."""
    assert server.connect(SITE, server.context(version)).version() == version.name.replace("_", ".")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(server: Any, version: ssl.TLSVersion) -> None:
    """Catches old TLS versions that a default lets in."""
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        server.connect(SITE, server.context(version))


def test_weak_ciphers_are_refused(server: Any) -> None:
    """Catches a cipher list without forward secrecy."""
    made = server.context(ssl.TLSVersion.TLSv1_2)
    made.set_ciphers("AES128-SHA:AES128-GCM-SHA256:ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        server.connect(SITE, made)


@pytest.mark.parametrize("name", ["unknown.test.example", None])
def test_unknown_names_get_no_certificate(server: Any, name: str | None) -> None:
    """Catches a default site that shows its certificate to scanners."""
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        server.connect(name, server.context())


@pytest.mark.parametrize("tls", [False, True])
def test_unknown_hosts_get_no_content(server: Any, tls: bool) -> None:
    """Catches a default page, over HTTP and behind a known name's handshake."""
    connection = server.connect(SITE, server.context()) if tls else socket.create_connection((server.address, 80), timeout=20)
    connection.sendall(b"GET / HTTP/1.1\r\nHost: unknown.test.example\r\n\r\n")
    try:
        answer = connection.recv(100)
    except ConnectionResetError:
        answer = b""
    assert answer == b""


def test_http2_is_negotiated(server: Any) -> None:
    """Catches the wrong spelling of http2 for the release's nginx."""
    made = server.context()
    made.set_alpn_protocols(["h2", "http/1.1"])
    assert server.connect(SITE, made).selected_alpn_protocol() == "h2"


@pytest.mark.one_release
def test_http3_is_spoken(server: Any, network: str, ca: Any, auditor: Any) -> None:
    """Catches HTTP/3 that is announced and does not answer, has a site's rules for itself, or shows strangers a certificate."""
    assert server.get("/").headers["Alt-Svc"] == 'h3=":8443"; ma=86400'

    def curl(name: str, path: str, *options: str) -> tuple[int, str]:
        given = ["--silent", "--show-error", "--http3-only", "--cacert", "/ca.pem", "--resolve", f"{name}:443:{server.address}", *options]
        said = ["--write-out", r"\n%{http_version} %{http_code}"]
        return audit.start(auditor, network, ["curl", *given, *said, f"https://{name}{path}"], ca).result(60)

    code, output = curl(SITE, "/x?y=z", "--header", "X-Forwarded-For: 203.0.113.20")
    assert (code, output.splitlines()[-1]) == (0, "3 200")
    seen = json.loads(output.splitlines()[-2])
    assert (seen["path"], seen["headers"]["Host"]) == ("/x?y=z", f"{SITE}:8443")
    assert "203.0.113.20" not in output
    code, output = curl(SITE, "/office/a")
    assert (code, output.splitlines()[-1]) == (0, "3 403")
    code, output = curl("unknown.test.example", "/", "--insecure")
    assert code != 0
    assert output.splitlines()[-1] == "0 000"


@pytest.mark.one_release
def test_a_key_exchange_that_outlives_quantum_computers(server: Any, network: str, ca: Any, auditor: Any) -> None:
    """Catches a list of groups that leaves out X25519MLKEM768 where OpenSSL has it."""
    command = ["openssl", "s_client", "-connect", f"{server.address}:443", "-servername", SITE, "-CAfile", "/ca.pem", "-brief"]
    _, output = audit.start(auditor, network, command, ca).result(60)
    assert "X25519MLKEM768" in output
