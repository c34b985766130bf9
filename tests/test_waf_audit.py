"""What the log of the web application firewall keeps of an entry, and how much of them all."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from roles.waf.files import waf_audit


def message(target: str, value: str, matched: str | None = None) -> dict[str, Any]:
    data = f"Matched Data: {matched or value} found within {target}: {value}"
    match = f"Matched \"Operator `Rx' with parameter `x' against variable `{target}' (Value: `{value}' )"
    return {"message": "XSS", "details": {"ruleId": "941110", "data": data, "match": match}}


def entry(*messages: dict[str, Any], uri: str = "/search?q=hush", identity: str = "a1") -> dict[str, Any]:
    request = {"method": "GET", "uri": uri, "headers": {"Cookie": "hush"}, "body": "hush"}
    return {
        "transaction": {
            "unique_id": identity,
            "client_ip": "192.0.2.1",
            "request": request,
            "response": {"http_code": 403},
            "messages": messages,
        }
    }


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    (tmp_path / "spool/20261125/20261125-2229").mkdir(parents=True)
    return tmp_path / "spool"


def put(spool: Path, name: str, content: bytes) -> Path:
    path = spool / "20261125/20261125-2229" / name
    path.write_bytes(content)
    return path


def lines(log: waf_audit.Log) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.path.read_text().splitlines()]


@pytest.mark.parametrize(
    "target",
    [
        "ARGS:password",
        "ARGS:json.user.access_token",
        "REQUEST_COOKIES:theme",
        "REQUEST_HEADERS:Authorization",
        "QUERY_STRING",
        "REQUEST_BODY",
    ],
)
def test_secret_values_are_left_out(target: str) -> None:
    text = waf_audit.line(entry(message(target, "hush <script>"))).decode()
    assert "hush" not in text
    assert json.loads(text)["findings"] == [{"rule": 941110, "message": "XSS", "target": target, "value": "(left out)"}]


def test_a_value_cannot_pretend_to_be_another_targets() -> None:
    text = waf_audit.line(entry(message("ARGS:password", "hush found within ARGS:q: x"))).decode()
    assert "hush" not in text


def test_other_values_stay_and_are_cut() -> None:
    kept = json.loads(waf_audit.line(entry(message("ARGS:q", "<script>" + "a" * 999))))
    assert (kept["request_id"], kept["path"], kept["status"]) == ("a1", "/search", 403)
    assert kept["findings"][0]["value"] == ("<script>" + "a" * 999)[: waf_audit.VALUE_LENGTH]


def test_an_entry_that_is_being_written_waits(spool: Path, tmp_path: Path) -> None:
    log = waf_audit.Log(tmp_path / "audit.log", 1024 * 1024)
    path = put(spool, "one", json.dumps(entry()).encode()[:-5])
    waf_audit.gather(spool, log)
    assert path.exists()
    assert lines(log) == []
    path.write_bytes(json.dumps(entry()).encode())
    waf_audit.gather(spool, log)
    assert not path.exists()
    assert [line["request_id"] for line in lines(log)] == ["a1"]


def test_what_stays_broken_is_named_and_gone(spool: Path, tmp_path: Path) -> None:
    log = waf_audit.Log(tmp_path / "audit.log", 1024 * 1024)
    path = put(spool, "one", b"{")
    os.utime(path, (time.time() - 60,) * 2)
    waf_audit.gather(spool, log)
    assert not path.exists()
    assert lines(log)[0]["unreadable"] == "one"


def test_half_a_character_breaks_no_entry(spool: Path, tmp_path: Path) -> None:
    log = waf_audit.Log(tmp_path / "audit.log", 1024 * 1024)
    put(spool, "one", json.dumps(entry(message("ARGS:q", "x"))).encode().replace(b"Data: x", b"Data: \x8c\xd0"))
    waf_audit.gather(spool, log)
    assert lines(log)[0]["findings"][0]["target"] == "ARGS:q"


def test_a_flood_is_cut(spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waf_audit, "WAITING", 5)
    log = waf_audit.Log(tmp_path / "audit.log", 1024 * 1024)
    for number in range(20):
        put(spool, f"{number:03}", json.dumps(entry(identity=str(number))).encode())
    waf_audit.gather(spool, log)
    first, *others = lines(log)
    assert first["dropped"] == 15
    assert [line["request_id"] for line in others] == ["15", "16", "17", "18", "19"]
    assert not list((spool / "20261125/20261125-2229").iterdir())


def test_the_log_holds_no_more_than_it_may(spool: Path, tmp_path: Path) -> None:
    limit = 40_000
    log = waf_audit.Log(tmp_path / "logs.log", limit)
    for number in range(1000):
        put(spool, f"{number:04}", json.dumps(entry(message("ARGS:q", "x" * 100), identity=str(number))).encode())
    waf_audit.gather(spool, log)
    files = sorted(tmp_path.glob("logs.log*"))
    assert len(files) == waf_audit.FILES
    assert limit / 2 < sum(path.stat().st_size for path in files) <= limit
    kept = [json.loads(line)["request_id"] for path in [*reversed(files[1:]), files[0]] for line in path.read_text().splitlines()]
    assert kept == [str(number) for number in range(1000 - len(kept), 1000)]
