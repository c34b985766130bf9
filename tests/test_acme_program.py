"""What the program of the role tls lets through to services, and what it makes of certbot's words."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from roles.tls.files import groundcrew_acme as acme
from tests.bad_input_examples import key_pair

NAMES = ["www.example.org", "example.org"]
# certbot 4.0, shortened
REPORT = """Saving debug log to /var/lib/groundcrew-acme/default/logs/letsencrypt.log
Requesting a certificate for www.example.org and example.org

Certbot failed to authenticate some domains (authenticator: webroot). The Certificate Authority reported these problems:
  Domain: example.org
  Type:   dns
  Detail: DNS problem: NXDOMAIN looking up A for example.org - check that a DNS record exists
   for this domain

  Domain: www.example.org
  Type:   connection
  Detail: 192.0.2.1: Timeout during connect

Hint: The Certificate Authority failed to download the temporary challenge files created by Certbot.

Some challenges have failed.
Ask for help or search for solutions at https://community.letsencrypt.org.
"""


def pair(*names: str, days: int = 30) -> tuple[bytes, bytes]:
    certificate, key = key_pair(*names, days=days)
    return key.encode(), certificate.encode()


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> acme.Certificate:
    """A certificate in use, and a newer one that certbot has got."""
    monkeypatch.setattr(acme, "SETTINGS", tmp_path)
    monkeypatch.setattr(acme, "STATE", tmp_path / "state")
    (tmp_path / "default.json").write_text(
        json.dumps(
            {
                "names": NAMES,
                "server": "https://acme.example.org/dir",
                "directory": str(tmp_path),
                "key_group": "",
                "units": ["nginx.service"],
            }
        )
    )
    made = acme.Certificate("default")
    made.live.mkdir(parents=True)
    fill(made.target, pair(*NAMES))
    fill(made.live, pair(*NAMES))
    return made


def fill(folder: Path, content: tuple[bytes, bytes]) -> None:
    for name, text in zip(acme.FILES, content, strict=True):
        (folder / name).write_bytes(text)


def systemctl(monkeypatch: pytest.MonkeyPatch, reload: int) -> list[str]:
    """Stand in for systemd, which runs nginx; returns what it is asked."""
    asked: list[str] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command[1])
        return subprocess.CompletedProcess(command, reload if command[1] == "reload" else 0, "", "Job failed.")

    monkeypatch.setattr(subprocess, "run", run)
    return asked


@pytest.mark.parametrize(
    ("new", "why"),
    [
        ((pair(*NAMES)[0], pair(*NAMES)[1]), "its key is another one's"),
        (pair(*NAMES, days=-1), "it is valid from"),
        (pair("www.example.org"), "it does not stand for example.org"),
        ((b"no key", pair(*NAMES)[1]), "it cannot be read"),
    ],
)
def test_what_may_not_serve_is_not_put_in_place(
    certificate: acme.Certificate, monkeypatch: pytest.MonkeyPatch, new: tuple[bytes, bytes], why: str
) -> None:
    """Catches a pair on disk with which no service starts again."""
    asked, before = systemctl(monkeypatch, 0), acme.read_pair(certificate.target)
    fill(certificate.live, new)
    with pytest.raises(acme.Trouble, match=why):
        acme.take_over(certificate)
    assert acme.read_pair(certificate.target) == before
    assert not asked


def test_a_new_one_is_read_once(certificate: acme.Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a service that goes on without the new one, and one that is reloaded for nothing."""
    asked = systemctl(monkeypatch, 0)
    # Only root gives files away
    monkeypatch.setattr(acme, "give_key", lambda _: None)
    for _ in range(2):
        acme.take_over(certificate)
    assert acme.read_pair(certificate.target) == acme.read_pair(certificate.live)
    assert [word for word in asked if word == "reload"] == ["reload"]


def test_a_service_that_refuses_keeps_the_one_before(certificate: acme.Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a new certificate that stays on disk although its reader did not take it."""
    systemctl(monkeypatch, 1)
    before = acme.read_pair(certificate.target)
    with pytest.raises(acme.Trouble, match=r"nginx\.service refuses to reload"):
        acme.take_over(certificate)
    assert acme.read_pair(certificate.target) == before


def test_the_servers_own_words_are_told() -> None:
    """Catches a message that names no name, or certbot's advice in place of the reason."""
    told = acme.refusal(REPORT)
    assert isinstance(told, acme.Refused)
    assert str(told) == (
        "example.org: dns: DNS problem: NXDOMAIN looking up A for example.org - check that a DNS record exists for this domain; "
        "www.example.org: connection: 192.0.2.1: Timeout during connect"
    )
    said = "Saving debug log to /x\nAn unexpected error occurred:\nAccount 1 not found.\nAsk for help or search for solutions."
    assert str(acme.refusal(said)) == "Account 1 not found."


@pytest.mark.parametrize(("state", "starts"), [("activating", 2), ("inactive", 1)])
def test_a_run_that_came_too_early_is_asked_again(
    certificate: acme.Certificate, monkeypatch: pytest.MonkeyPatch, state: str, starts: int
) -> None:
    """Catches a first run that reports what a timer found before the web server knew the names."""
    asked: list[str] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command[1])
        return subprocess.CompletedProcess(command, 3, f"{state}\n")

    monkeypatch.setattr(subprocess, "run", run)
    acme.issue([certificate])
    assert asked.count("start") == starts


@pytest.mark.parametrize(("days", "near"), [(20, True), (60, False)])
def test_a_certificate_that_nears_its_end_is_told(certificate: acme.Certificate, days: int, near: bool) -> None:
    """Catches a renewal that fails quietly, whatever certbot says."""
    certificate.settings["warn_days"] = 21
    fill(certificate.target, pair(*NAMES, days=days))
    if near:
        with pytest.raises(acme.Trouble, match="and was not renewed"):
            acme.watch(certificate)
    else:
        acme.watch(certificate)
