"""Who is let in where, and as whom the application and the rules see a client."""

from __future__ import annotations

import base64
import datetime
import json
from typing import Any

import pytest

SITE, GUARDED = "www.test.example", "guarded.test.example"
INSIDE, OUTSIDE = "203.0.113.20", "192.0.2.20"
# Each names a path below /office to those who decode and tidy it up
OFFICE = (
    "/office",
    "/office/",
    "/office/a",
    "//office/a",
    "/%6fffice",
    "/%6Fffice%2Fa",
    "/x/../office/a",
    "/x/%2e%2e/office",
    "/x/..%2foffice/a",
    "/.//office",
)
# Each begins like one and is none
ELSEWHERE = ("/office/../hooks", "/office/..%2fhooks", "/office%2f..%2fhooks", "/office/%2e%2e/hooks", "//office//..//hooks")


def password(user: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()}


ADA, BOB = password("ada", "let me in, please"), password("bob", "me too, please")


@pytest.mark.parametrize("path", OFFICE)
def test_a_route_is_closed_however_it_is_written(proxied: Any, path: str) -> None:
    """Catches a spelling of a path that gets another path's rules."""
    assert proxied.get(path, X_Forwarded_For=OUTSIDE).status == 403
    assert proxied.get(path, X_Forwarded_For=INSIDE).json()["path"].startswith("/office")
    assert proxied.get(path, X_Forwarded_For="2001:db8:f:1::1").status == 200


@pytest.mark.parametrize("path", ELSEWHERE)
def test_the_application_gets_the_path_whose_rules_were_asked(proxied: Any, path: str) -> None:
    """Catches one path's rules and another's answer: /office/..%2fhooks once got in past the rules of /office."""
    assert proxied.get(path, X_Forwarded_For=OUTSIDE).json()["path"] == "/hooks"


def test_a_path_reaches_the_application_as_it_is(server: Any) -> None:
    """Catches a path decoded or escaped once too often, and a query that is touched."""
    for path in (
        "/a%20b",
        "/%C3%A9/%E2%82%AC",
        "/100%25",
        "/a%252fb",
        "/a%3Fb%23c",
        "/a%0Ab",
        "/a+b;c=1,2:@&=$!'()*~",
        "/?q=%2f..%2f//&a=b%20c",
    ):
        assert server.get(path).json()["path"] == path


def test_a_route_inside_another_may_be_open(server: Any) -> None:
    """Catches an inner route that gets nothing from the outer one, or can take nothing back."""
    assert [server.get(path).status for path in ("/office/open", "/office/open/a", "/office/opened", "/officer")] == [200, 200, 403, 200]
    assert [server.get(path).status for path in ("/private", "/private/", "/private/inner", "/private/inner/a")] == [401] * 4


def test_users_give_their_password(host: Any, server: Any) -> None:
    """Catches a hash that the release's crypt() does not know, a file that nginx cannot read, and one that others can."""
    assert [server.get("/private", **user).status for user in (ADA, BOB)] == [200, 200]
    wrong = (password("ada", "me too, please"), password("ada", ""), password("eve", "let me in, please"), {"Authorization": "Basic !"})
    answers = [server.get("/private", **user) for user in wrong]
    assert [answer.status for answer in answers] == [401] * 4
    assert answers[0].headers["WWW-Authenticate"].startswith("Basic ")
    assert answers[0].headers["X-Content-Type-Options"] == "nosniff"
    with host.sudo():
        files = host.check_output("stat -c '%n %a %U:%G' /etc/nginx/users/*").splitlines()
    assert files == [f"/etc/nginx/users/{name} 640 root:www-data" for name in ("guarded", "shop:private")]
    assert host.run("cat /etc/nginx/users/guarded").rc != 0


def test_a_guarded_site_is_closed_everywhere(proxied: Any) -> None:
    """Catches a place of a site that lets in whoever has the wrong address or no password, and a route that cannot be opened."""

    def ask(path: str, client: str, **more: str) -> int:
        return int(proxied.get(path, GUARDED, X_Forwarded_For=client, **more).status)

    for path in ("/", "/a", "/static/site.css", "/.well-known/security.txt"):
        assert [ask(path, OUTSIDE, **ADA), ask(path, INSIDE)] == [403, 401], path
    assert [ask(path, INSIDE, **ADA) for path in ("/", "/static/site.css")] == [200, 200]
    assert [ask("/healthz", OUTSIDE), ask("/healthz/a", OUTSIDE)] == [200, 200]


def test_only_the_declared_proxy_says_who_the_client_is(server: Any, proxied: Any) -> None:
    """Catches a stranger who is let in, or hides, by a header; and a proxy's clients who all look like the proxy."""
    forged = {"X_Forwarded_For": INSIDE, "X_Real_IP": INSIDE, "Forwarded": f"for={INSIDE}", "True_Client_IP": INSIDE}
    assert server.get("/office", **forged).status == 403
    assert INSIDE not in json.dumps(server.get("/", **forged).json()["headers"].get("X-Forwarded-For"))
    # What a client has written stands before what the proxy has added
    assert proxied.get("/office", X_Forwarded_For=f"{INSIDE}, {OUTSIDE}").status == 403
    seen = proxied.get("/", X_Forwarded_For=f"{OUTSIDE}, {INSIDE}, fd67::1").json()["headers"]
    assert (seen["X-Forwarded-For"], seen["X-Real-IP"]) == (INSIDE, INSIDE)


def test_the_log_names_the_proxys_client(host: Any, proxied: Any, eventually: Any) -> None:
    """Catches a log in which the proxy did everything, and bans that would meet it."""
    request_id = proxied.get("/", X_Forwarded_For=OUTSIDE).headers["X-Request-ID"]
    with host.sudo():
        line = eventually(lambda: host.run(f"grep {request_id} /var/log/nginx/access.log").stdout.strip())
    assert json.loads(line)["client"] == OUTSIDE


def test_security_txt(server: Any) -> None:
    """Catches what RFC 9116 would not have: another type, no contact, no or a past end."""
    answer = server.get("/.well-known/security.txt")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    fields = [line.split(": ", 1) for line in answer.body.decode().splitlines()]
    assert [value for name, value in fields if name == "Contact"] == ["mailto:security@test.example", "https://test.example/holes"]
    assert dict(fields)["Canonical"] == f"https://{SITE}:8443/.well-known/security.txt"
    assert datetime.datetime.fromisoformat(dict(fields)["Expires"]) > datetime.datetime.now(datetime.UTC)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
