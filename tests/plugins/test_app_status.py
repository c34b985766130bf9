"""What status.yml shows of a host, with systemd and openssl stood in for."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ansible.module_utils.app_releases import mark_bad, select

from plugins.modules import app_status


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    begins, ends = ((datetime.now(UTC) + timedelta(days=days, hours=1)).strftime("%b %d %H:%M:%S %Y GMT") for days in (-60, 30))
    said = {
        "--wait": "3\n",
        "show": "active\n\nactive\n",
        "list-units": "shop-web@blue.service loaded active running Web\nshop-beat.service loaded failed failed Beat\n"
        "shop-old.service loaded inactive dead Old\n",
        "x509": f"notBefore={begins}\nnotAfter={ends}\n",
    }
    monkeypatch.setattr(app_status, "output", lambda *command: said[command[1]])
    monkeypatch.setattr(app_status, "ask", lambda *_: (200, ""))
    for number, name in enumerate(["one", "two"]):
        (tmp_path / "releases" / name).mkdir(parents=True)
        os.utime(tmp_path / "releases" / name, (time.time() - 7200 - number, time.time() - 3600 * 3 + number))
    mark_bad(tmp_path / "releases/two", "its migration ended with 1")
    select(tmp_path, "one")
    (tmp_path / "web/blue").mkdir(parents=True)
    (tmp_path / "web/blue/pinned.json").write_text(json.dumps({"units": ["shop-web@.service"], "since": time.time() - 300}))
    (tmp_path / "web/blue/release").symlink_to(tmp_path / "releases/one")
    (tmp_path / "web/blue/run").symlink_to("/run/shop/web-blue")
    (tmp_path / "web/live").symlink_to("blue")
    (tmp_path / "worker/green").mkdir(parents=True)
    (tmp_path / "worker/green/release").symlink_to(tmp_path / "releases/one")
    (tmp_path / "worker/live").symlink_to("green")
    return tmp_path


def test_a_host_is_a_table(home: Path) -> None:
    """Catches a status that lacks the live release, its health, a bad release, kept tasks, a failed unit or the end of a certificate."""
    rows = [
        *app_status.slot_rows("shop", home, "/healthz", "www.example.org"),
        *app_status.release_rows(home),
        *app_status.task_rows("shop", home, "shop:celery"),
        *app_status.unit_rows("shop", []),
        *app_status.certificate_rows(["/etc/ssl/cert.pem"], 14),
    ]
    lines = app_status.table("app1", rows).splitlines()
    assert lines[0] == "app1"
    assert lines[1] == "  web          blue  live  one  active, /healthz 200, filled 5 min ago"
    assert lines[2].startswith("  releases     two  last changed 3 h ago, bad: ")
    assert lines[2].endswith("its migration ended with 1")
    assert lines[3] == "               one  current, last changed 3 h ago"
    assert lines[4] == "  tasks        3 kept for another release"
    assert lines[5:7] == ["  units        shop-web@blue.service  active (running)", "               shop-beat.service  failed (failed)"]
    assert lines[7].startswith("  certificate  /etc/ssl/cert.pem  ends ")
    assert lines[7].endswith(", in 30 days")


def test_a_certificate_that_nears_its_end_stands_out(home: Path) -> None:
    """Catches a warning that comes too late, at once for short lives, or does not say why the certificate was not renewed."""
    certificate = home / "fullchain.pem"
    (home / "problem").write_text("No new one: its server is down.\n")
    soon, why = (said for _, said in app_status.certificate_rows([str(certificate)], 31))
    assert not soon.endswith("WARNING: soon"), "more than a quarter of its life is left"
    assert why == "WARNING: No new one: its server is down."


def test_a_closed_site_is_told_first(tmp_path: Path) -> None:
    assert list(app_status.maintenance_rows("")) == []
    (tmp_path / "shop").touch()
    os.utime(tmp_path / "shop", (time.time() - 7200, time.time() - 7200))
    assert list(app_status.maintenance_rows(str(tmp_path))) == [("maintenance", "shop is closed for 2 h")]


def test_a_host_without_a_release_has_a_short_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_status, "output", lambda *_: "")
    assert list(app_status.slot_rows("shop", tmp_path, "/", "x")) == []
    assert list(app_status.release_rows(tmp_path)) == []
    assert list(app_status.task_rows("shop", tmp_path, "shop:celery")) == []
    assert app_status.table("web1", []) == "web1"


def test_a_broker_that_is_away_is_told_of(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_status, "output", lambda *_: "")
    ((_, said),) = app_status.task_rows("shop", home, "shop:celery")
    assert said == "unknown how many kept for another release"
