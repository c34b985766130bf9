"""What the web application firewall refuses and what it lets through, from the controller and over real connections."""

from __future__ import annotations

import concurrent.futures
import functools
import http.client
import json
import os
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest
from corpus import SITE, Raw, Request, attacks, form, ordinary, put, raw_attacks, request

OPEN = "open.test.example"
LOG = "/var/log/groundcrew-waf/audit.log"
SPOOL = "/var/lib/groundcrew/waf"
# 0: the connection was closed
REFUSED = {0, 400, 403, 404, 405, 408, 411, 413, 414, 415, 417, 421, 431, 444, 494, 501, 505}
ATTACK = put("an attack", "query", "1' UNION SELECT username, password FROM users--")
CA = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", "")) / "ca" / "ca.pem"

# What the Core Rule Set finds in it from level 2 on alone
LEVEL_TWO = {942200, 942260, 942361, 942480}

Converge = Callable[..., Any]
Eventually = Callable[..., Any]
Ask = Callable[[Request], "Answer"]


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def id(self) -> str:
        return self.headers.get("X-Request-ID", "")


@functools.cache
def context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(CA))


def connect(address: str, name: str = SITE, timeout: float = 20) -> ssl.SSLSocket:
    return context().wrap_socket(socket.create_connection((address, 443), timeout=timeout), server_hostname=name)


class Client:
    """Asks a site over a kept-alive connection, whatever the request is, and over a new one where the site has closed it."""

    def __init__(self, address: str, name: str = SITE) -> None:
        self.address, self.name = address, name
        self.sock: ssl.SSLSocket | None = None

    def __call__(self, asked: Request) -> Answer:
        # By hand: http.client refuses to send much of what attackers do
        lines = [
            f"{asked.method} {asked.path} HTTP/1.1",
            f"Host: {self.name}",
            *(f"{name}: {value}" for name, value in asked.headers.items()),
        ]
        if asked.body is not None:
            lines.append(f"Content-Length: {len(asked.body)}")
        sent = "\r\n".join([*lines, "", ""]).encode() + (asked.body or b"")
        sock = self.sock or connect(self.address, self.name)
        sock.sendall(sent)
        answer = http.client.HTTPResponse(sock, method=asked.method)
        answer.begin()
        body = answer.read()
        self.sock = None if answer.will_close else sock
        return Answer(answer.status, dict(answer.headers), body)


def status(address: str, raw: Raw) -> int:
    """The status of the answer to raw bytes; 0 where the connection is closed without one."""
    with connect(address, timeout=20) as sock:
        end = time.monotonic() + 20
        try:
            sock.sendall(raw.text)
            if raw.drip:
                sock.settimeout(1)
            while time.monotonic() < end:
                try:
                    first = sock.recv(200)
                except TimeoutError:
                    if not raw.drip:
                        break
                    sock.sendall(raw.drip)
                    continue
                return int(first.split()[1]) if first.startswith(b"HTTP/") else 0
        except OSError:
            return 0
    pytest.fail(f"{raw.about}: neither refused nor given up")


@pytest.fixture(scope="module")
def ask(address: str) -> Ask:
    return Client(address)


@pytest.fixture
def entry(host: Any, eventually: Eventually) -> Callable[[str], dict[str, Any]]:
    """Return a function that finds the log's entry of a request."""

    def find(request_id: str) -> dict[str, Any]:
        with host.sudo():
            found = eventually(lambda: host.run(f"cat {LOG}* | grep -F {request_id}").stdout.strip())
        parsed: dict[str, Any] = json.loads(found)
        return parsed

    return find


def test_ordinary_requests_pass(ask: Ask) -> None:
    """Catches false alarms: names, prose, seven scripts, programs, uploads, tokens, browsers."""
    asked = list(ordinary())
    refused = [f"{one.about}: {answer.status} {answer.id}" for one in asked if (answer := ask(one)).status != 200]
    print(f"{len(asked)} ordinary requests, {len(refused)} refused")
    assert len(asked) >= 150
    assert not refused, "\n".join(refused)


def test_attacks_are_refused(address: str) -> None:
    """Catches rules that do not ask, bodies that are not read, and a mode that only looks."""
    asked = list(attacks())
    ask = Client(address)
    passed = [f"{one.about}: {answer.status}" for one in asked if (answer := ask(one)).status not in REFUSED]
    print(f"{len(asked)} attacks, {len(passed)} passed")
    assert not passed, "\n".join(passed)


def test_what_is_no_request_is_refused(address: str) -> None:
    """Catches malformed, oversized, smuggled and very slow requests that hold a connection, or reach the application."""
    asked = list(raw_attacks())
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        seen = dict(zip((raw.about for raw in asked), pool.map(lambda raw: status(address, raw), asked), strict=True))
    print(seen)
    assert {about: code for about, code in seen.items() if code not in REFUSED} == {}


def test_the_site_without_serves_what_the_other_refuses(address: str) -> None:
    """Catches a corpus that proves nothing: an application that refuses by itself, or rules that every site gets."""
    ask = Client(address, OPEN)
    assert ask(ATTACK).status == 200


def test_a_refusal_names_its_entry(ask: Ask, entry: Any) -> None:
    """Catches a page that helps nobody, and a refusal that the log does not know."""
    answer = ask(ATTACK)
    assert answer.status == 403
    assert f"its number: {answer.id}".encode() in answer.body
    assert b"nginx" not in answer.body
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    found = entry(answer.id)
    assert (found["method"], found["path"], found["status"]) == ("GET", "/search", 403)
    assert {finding["target"] for finding in found["findings"]} >= {"ARGS:q"}


def test_the_application_may_say_403_itself(ask: Ask) -> None:
    """Catches an application's own answers put aside."""
    assert json.loads(ask(request("own", "/status/403")).body)["path"] == "/status/403"


def test_the_log_keeps_no_secrets(host: Any, ask: Ask, entry: Any) -> None:
    """Catches passwords, cookies and tokens in the log, and in what waits for it."""
    attack = "hush0 <script>alert(1)</script>"
    answer = ask(
        request(
            "secrets", f"/search?access_token={attack.replace(' ', '%20')}", Cookie=f"session={attack}", Authorization=f"Bearer {attack}"
        )
    )
    body = ask(form("a secret in a body", "/login", {"password": attack}))
    assert (answer.status, body.status) == (403, 403)
    found = entry(answer.id)["findings"] + entry(body.id)["findings"]
    assert {"ARGS:access_token", "ARGS:password"} <= {finding["target"] for finding in found}
    with host.sudo():
        assert not host.run(f"grep -rl hush0 {SPOOL} /var/log/groundcrew-waf").stdout


def test_an_exclusion_lets_exactly_its_case_through(ask: Ask) -> None:
    """Catches an exclusion that is not there, and one that opens another path, another argument or to another rule."""
    sort, script = "1'%20or%20'1'='1", "<script>alert(1)</script>"
    asked = {
        "case": f"/reports/5?sort={sort}",
        "path": f"/search?sort={sort}",
        "argument": f"/reports/5?id={sort}",
        "rule": f"/reports/5?sort={script}",
    }
    assert {about: ask(request(about, path)).status for about, path in asked.items()} == {
        "case": 200,
        "path": 403,
        "argument": 403,
        "rule": 403,
    }


def test_entries_are_whole_and_the_log_is_bounded(host: Any, address: str, eventually: Eventually) -> None:
    """Catches entries of several workers that are written into each other, and a log that a flood of attacks makes larger."""
    # Findings with long values, so that an entry is longer than a page of memory
    paths = [
        f"/search?{'&'.join(f'a{number}=<script>{number}{chr(39)}%20or%20{chr(39)}1{chr(39)}={chr(39)}1' for number in range(15))}"
    ] * 100

    def flood(_: int) -> set[int]:
        ask = Client(address)
        return {ask(request("flood", path)).status for path in paths}

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert set().union(*pool.map(flood, range(4))) == {403}
    with host.sudo():
        eventually(lambda: not host.check_output(f"find {SPOOL} -type f"), within=60)
        files = host.check_output(f"ls {LOG}*").split()
        texts = {name: host.check_output(f"cat {name}") for name in files}
        size = int(host.check_output(f"cat {LOG}* | wc -c"))
    entries = [json.loads(line) for text in texts.values() for line in text.splitlines()]
    assert len(files) == 4, "the log has not turned over"
    assert 512 * 1024 < size <= 1024 * 1024
    assert not [one for one in entries if "unreadable" in one or "dropped" in one]
    assert max(len(one["findings"]) for one in entries) > 15


def test_a_dead_keeper_comes_back(host: Any, ask: Ask, entry: Any, eventually: Eventually) -> None:
    """Catches entries that are lost while nobody keeps the log, and a keeper that stays dead."""
    unit = "groundcrew-waf-audit.service"
    with host.sudo():
        pid = host.check_output(f"systemctl show -P MainPID {unit}")
        host.check_output(f"systemctl kill --signal=KILL {unit}")
        answer = ask(ATTACK)
        eventually(lambda: host.check_output(f"systemctl show -P MainPID {unit}") not in {"0", pid})
    assert entry(answer.id)["status"] == 403


@pytest.mark.parametrize("unit", ["groundcrew-waf-audit.service", "nginx.service"])
def test_security_score(exposure: Any, unit: str) -> None:
    """Catches a sandbox that went missing."""
    assert exposure(unit) <= 2.0


@pytest.mark.one_release
def test_broken_rules_stay_out(host: Any, ask: Ask, converge: Converge) -> None:
    """Catches rules that land although nginx cannot read them: the next start would fail."""
    before = host.file("/etc/modsecurity/groundcrew/main.conf").sha256sum
    result = converge(waf_rules_after='SecRule ARGS "@rx (" "id:20001,phase:2,deny"\nSecNoSuchThing On')
    assert result.returncode == 2
    assert "SecNoSuchThing" in result.stdout + result.stderr
    assert host.file("/etc/modsecurity/groundcrew/main.conf").sha256sum == before
    assert ask(ATTACK).status == 403


def test_all_is_back_after_a_restart(host: Any, address: str, entry: Any, eventually: Eventually) -> None:
    """Catches rules, a folder or a keeper that only the run had set up."""
    docker.from_env().containers.get(f"groundcrew-waf-{host.ansible.get_variables()['inventory_hostname']}").restart()
    eventually(lambda: host.run("systemctl is-system-running").stdout.strip() == "running", within=60)
    ask = Client(address)
    assert eventually(lambda: ask(request("ordinary")).status) == 200
    assert entry(ask(ATTACK).id)["status"] == 403


# The last one: it leaves the host in that mode
@pytest.mark.one_release
def test_detection_logs_and_serves(address: str, converge: Converge, entry: Any, eventually: Eventually) -> None:
    """Catches a mode that refuses although it shall look, rules that nginx does not read again, and a paranoia level that adds nothing."""
    converged = converge(waf_mode="detection", waf_paranoia_level=2, playbook="molecule/waf/converge.yml")
    assert converged.returncode == 0, converged.stdout
    # Old workers end what they have
    eventually(lambda: Client(address)(ATTACK).status == 200)
    answer = Client(address)(ATTACK)
    found = entry(answer.id)
    assert (answer.status, found["status"]) == (200, 200)
    assert {finding["rule"] for finding in found["findings"]} & LEVEL_TWO
