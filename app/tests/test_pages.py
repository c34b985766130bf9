"""Pages, as a browser without JavaScript sees them."""

from __future__ import annotations

import hashlib
import itertools
import re
import uuid
from html.parser import HTMLParser
from pathlib import Path

import pytest
from flask import Flask, request
from flask.testing import FlaskClient
from sqlalchemy import Engine, text
from werkzeug.test import TestResponse

from tests.conftest import SECRET, MakeApp, https

COOKIE = "__Host-textreport"


def send(client: FlaskClient, body: str) -> TestResponse:
    """Load the form and send a text with its token."""
    token = re.search(r'name="csrf_token" value="([^"]+)"', client.get("/").text)
    assert token is not None
    return client.post("/", data={"csrf_token": token[1], "text": body}, content_type="multipart/form-data")


def test_form_leads_to_the_report(client: FlaskClient) -> None:
    """Sending ends at the report's page, which loads itself again where scripts are off."""
    answer = send(client, "One two.\r\nThree <b>four</b>.")
    assert answer.status_code == 303
    page = client.get(answer.headers["Location"])
    assert '<noscript><meta http-equiv="refresh"' in page.text
    assert 'aria-live="polite"' in page.text
    assert ">queued</span>" in page.text
    assert answer.headers["Location"] in client.get("/").text


def test_finished_report_stops_reloading(client: FlaskClient, engine: Engine) -> None:
    """A finished page needs no script, and words are shown as text, not as markup."""
    place = send(client, "text").headers["Location"]
    result = '{"words": 1234, "reading_seconds": 75, "frequent_words": [{"word": "<i>", "count": 7}]}'
    with engine.begin() as connection:
        connection.execute(text("update reports set state = 'done', result = :result"), {"result": result})
    page = client.get(place).text
    assert "refresh" not in page
    assert "<script" not in page
    assert "1,234" in page
    assert "1:15 min" in page
    assert "&lt;i&gt;" in page


def test_token_is_needed(client: FlaskClient, engine: Engine) -> None:
    """Another site's form stores nothing; an honest visitor with an old page keeps the text."""
    answer = client.post("/", data={"text": "precious words"})
    assert answer.status_code == 400
    assert "precious words" in answer.text
    with engine.connect() as connection:
        assert connection.scalar(text("select count(*) from reports")) == 0


def test_a_page_outlives_a_change_of_the_key(make_app: MakeApp) -> None:
    """A visitor's session and open form count while the key that signed them is a fallback, and no longer."""
    old, new = "0ld" + SECRET, "n3w" + SECRET
    # as a rotation has it: the servers accept the new key, then sign by it, then forget the old one
    stages = [(old, ""), (old, new), (new, old), (new, "")]
    apps = [https(make_app(secret_key=key, secret_key_fallbacks=also)) for key, also in stages]

    def sent(page: FlaskClient, to: FlaskClient) -> int:
        """Load the form anew from one server and send it to another."""
        page.delete_cookie(COOKIE)
        token = re.search(r'name="csrf_token" value="([^"]+)"', page.get("/").text)
        cookie = page.get_cookie(COOKIE)
        assert token is not None
        assert cookie is not None
        to.set_cookie(COOKIE, cookie.value, secure=True)
        form = {"csrf_token": token[1], "text": "words"}
        return to.post("/", data=form, content_type="multipart/form-data").status_code

    for earlier, later in itertools.pairwise(range(len(stages))):
        assert sent(apps[earlier], apps[later]) == 303, (earlier, later)
        assert sent(apps[later], apps[earlier]) == 303, (later, earlier)
    assert sent(apps[0], apps[3]) == 400


def test_problems_keep_the_text(client: FlaskClient, make_app: MakeApp) -> None:
    """A text that is too long or cannot be queued comes back in the form."""
    answer = send(client, "long " * 20_001)
    assert answer.status_code == 413
    assert 'role="alert"' in answer.text
    assert "long long" in answer.text
    answer = send(https(make_app(broker_url="redis://127.0.0.1:1/0")), "kept words")
    assert answer.status_code == 503
    assert "kept words" in answer.text


def test_very_large_form_is_refused(client: FlaskClient) -> None:
    """A body over the limit is not read."""
    assert client.post("/", data={"text": "x" * 2_000_000}).status_code == 413


def test_error_page_names_the_request(client: FlaskClient) -> None:
    """A visitor can tell support which request failed."""
    answer = client.get(f"/reports/{uuid.uuid4()}", headers={"X-Request-ID": "visitor-0001"})
    assert answer.status_code == 404
    assert "visitor-0001" in answer.text


@pytest.mark.parametrize("path", ["/", "/nothing", "/api/reports"])
def test_content_security_policy(client: FlaskClient, path: str) -> None:
    """Every answer forbids what is not ours, errors too."""
    assert client.get(path).headers["Content-Security-Policy"].startswith("default-src 'self';")


def test_session_cookie(client: FlaskClient) -> None:
    """The cookie is bound to this host and HTTPS, and hidden from scripts; the API sets none."""
    cookie = client.get("/").headers["Set-Cookie"]
    assert cookie.startswith("__Host-textreport=")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= set(cookie.split("; "))
    assert "Set-Cookie" not in client.get("/api/reports").headers


class Markup(HTMLParser):
    """Collects what the strict policy and screen readers care about."""

    def __init__(self) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.labels: set[str | None] = set()
        self.fields: set[str | None] = set()
        self.assets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one element."""
        found = dict(attrs)
        self.inline += [name for name in found if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in found):
            self.inline.append(tag)
        if tag == "label":
            self.labels.add(found["for"])
        if tag in ("textarea", "select") or (tag == "input" and found.get("type") != "hidden"):
            self.fields.add(found["id"])
        self.assets += [url for url in (found.get("src"), found.get("href")) if url and "/static/" in url]


def test_markup_and_assets(client: FlaskClient, app: Flask) -> None:
    """No inline code, a label for each field, and each asset's URL carries the hash of what it serves."""
    for path in ("/", send(client, "words").headers["Location"]):
        markup = Markup()
        markup.feed(client.get(path).text)
        assert markup.inline == []
        assert markup.fields == markup.labels
        assert len(markup.assets) >= 3
        for url in markup.assets:
            content = (Path(app.static_folder or "") / url.split("/static/")[1].split("?")[0]).read_bytes()
            assert url.endswith(f"?v={hashlib.sha256(content).hexdigest()[:12]}")
            answer = client.get(url)
            assert answer.data == content
            assert "max-age=31536000" in answer.headers["Cache-Control"]
            answer.close()
            # Of another release, to whose host the visitor's next request may go
            answer = client.get(url.replace("?v=", "?v=0"))
            assert answer.headers["Cache-Control"] == "no-cache"
            answer.close()


def test_trusted_proxies(make_app: MakeApp) -> None:
    """Forwarded headers count only where the settings name proxies."""
    forwarded = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    for number, expected in (("0", ["127.0.0.1", "http"]), ("1", ["203.0.113.9", "https"])):
        app = make_app(trusted_proxies=number)
        app.add_url_rule("/whoami", view_func=lambda: [request.remote_addr, request.scheme])
        assert app.test_client().get("/whoami", headers=forwarded).json == expected
