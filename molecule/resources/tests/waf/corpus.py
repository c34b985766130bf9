"""The requests of the two corpora: each what a client sends over TLS, and what it is about."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import yaml

HERE = Path(__file__).parent
SITE = "www.test.example"
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
BOUNDARY = "----boundary-of-a-browser"


@dataclass(frozen=True)
class Raw:
    """Bytes for a connection of their own; `drip` is sent again and again, and what `waits` is given up by the site after a while."""

    about: str
    text: bytes
    drip: bytes = b""
    waits: bool = False


@dataclass(frozen=True)
class Request:
    """A well-formed request, with the headers that a browser sends over these."""

    about: str
    method: str
    path: str
    body: bytes | None
    headers: dict[str, str]


def request(about: str, path: str = "/", method: str = "GET", body: str | bytes | None = None, **headers: str) -> Request:
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    common = {"User-Agent": AGENT, "Accept": "text/html,application/json;q=0.9,*/*;q=0.8", "Accept-Language": "de,en-US;q=0.7,en;q=0.3"}
    return Request(about, method, path, body.encode() if isinstance(body, str) else body, {**common, **more})


def form(about: str, path: str, fields: dict[str, str]) -> Request:
    return request(about, path, "POST", urlencode(fields), Content_Type="application/x-www-form-urlencoded")


def document(about: str, path: str, content: Any) -> Request:
    return request(about, path, "POST", json.dumps(content, ensure_ascii=False), Content_Type="application/json")


def multipart(about: str, path: str, content: bytes, disposition: str, kind: str = "") -> Request:
    typed = f"Content-Type: {kind}\r\n" if kind else ""
    begin = f"--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n{typed}\r\n".encode()
    body = begin + content + f"\r\n--{BOUNDARY}--\r\n".encode()
    return request(about, path, "POST", body, Content_Type=f"multipart/form-data; boundary={BOUNDARY}")


def put(about: str, place: str, text: str) -> Request:
    """A text where its place says."""
    about = f"{about}, {place}: {text[:60]!r}"
    match place:
        case "query":
            return request(about, f"/search?q={quote(text, safe='')}&page=1")
        case "form":
            return form(about, "/comments", {"name": text, "text": "Hello"})
        case "json":
            return document(about, "/api/items", {"name": text, "text": "Hello"})
        case "multipart":
            return multipart(about, "/comments", text.encode(), 'name="name"')
        case "prose_form":
            return form(about, "/comments", {"name": "anna", "text": text})
        case "prose_json":
            return document(about, "/api/items", {"name": "anna", "text": text})
        case "note_form":
            return form(about, "/notes", {"name": "anna", "text": text})
        case "note_json":
            return document(about, "/notes", {"name": "anna", "text": text})
        case "upload":
            return multipart(about, "/files", b"hello", f'name="file"; filename="{text}"', "application/octet-stream")
        case "cookie":
            return request(about, Cookie=f"theme={text}")
        case "agent":
            return request(about, User_Agent=text)
        case "referer":
            return request(about, Referer=text)
        case "path":
            return request(about, text)
        case "method":
            return request(about, method=text)
    raise ValueError(place)


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((HERE / name).read_text(encoding="utf-8"))
    return content


def attacks() -> Iterator[Request]:
    for group in read("attacks.yml")["payloads"]:
        for place in group["places"]:
            yield from (put(group["about"], place, text) for text in group["texts"])


def raw_attacks() -> Iterator[Raw]:
    values = {
        "{long}": "a" * 40_000,
        "{many}": "".join(f"X-{number}: a\r\n" for number in range(4000)),
        "{deep}": "[" * 10_000 + "]" * 10_000,
    }
    for entry in read("attacks.yml")["raw"]:
        text = entry["text"]
        for name, value in values.items():
            text = text.replace(name, value)
        yield Raw(entry["about"], text.encode("latin-1"), entry.get("drip", "").encode(), entry.get("waits", False))


def ordinary() -> Iterator[Request]:
    corpus = read("ordinary.yml")
    for group in corpus["texts"]:
        for place in group["places"]:
            yield from (put(group["about"], place, text * group.get("times", 1)) for text in group["texts"])
    yield from (put("path", "path", path) for path in corpus["paths"])
    yield from (document(f"document {content}", "/api/items", content) for content in corpus["documents"])
    yield from (form(f"form {fields}", "/account", fields) for fields in corpus["forms"])
    for upload in corpus["uploads"]:
        content = bytes.fromhex(upload["hex"]) if "hex" in upload else upload["text"].encode()
        yield multipart(f"upload {upload['name']}", "/files", content, f'name="file"; filename="{upload["name"]}"', upload["type"])
    yield multipart("upload of 800 kB", "/files", bytes(range(256)) * 3200, 'name="file"; filename="noise.bin"', "application/octet-stream")
    yield from (put("agent", "agent", agent) for agent in corpus["agents"])
    yield from (put("cookie", "cookie", cookie.partition("=")[2]) for cookie in corpus["cookies"])
    yield from (put("referer", "referer", referer) for referer in corpus["referrers"])
    for method in corpus["methods"]:
        body = '{"a": 1}' if method in {"POST", "PUT", "PATCH"} else None
        yield request(f"method {method}", "/api/items/5", method, body, **({"Content_Type": "application/json"} if body else {}))
