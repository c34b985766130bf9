"""A slot's requests: which answers open the gate, and when a slot is left."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest
from ansible.module_utils.app_releases import ReleaseError, alone, select

from plugins.modules import app_slot
from tests.plugins.slots import Systemd, ask, move, server


def test_the_gate_opens_for_200_alone_and_says_what_it_got(home: Path, systemd: Systemd) -> None:
    path = home.parent / "run-blue/s"
    with server(path, healthz=200, wrong=404, elsewhere=308, ill=503):
        ask(home, "answering", slot="blue")
        for url, status in [("/wrong", 404), ("/elsewhere", 308)]:
            with pytest.raises(ReleaseError, match=f"^{url} answered {status}"):
                ask(home, "answering", slot="blue", paths=[url])
        with pytest.raises(ReleaseError, match="not within 0 s: /ill answered 503"):
            ask(home, "answering", slot="blue", paths=["/ill"], timeout=0)
    systemd.restarts = 5
    path.unlink()
    with pytest.raises(ReleaseError, match=r"shop-web@blue\.socket ended 5 times; /healthz FileNotFoundError"):
        ask(home, "answering", slot="blue")


def test_the_old_slot_is_left_once_nobody_is_connected(home: Path, systemd: Systemd) -> None:
    """Catches a stop while somebody is served, and a release that is not watched meanwhile."""
    move(home)
    move(home, "two")
    systemd.active |= {"shop-web@blue.service"}
    with server(home.parent / "run-green/s", healthz=200), server(home.parent / "run-blue/s", healthz=200):
        assert ask(home, "drained")["seconds"] < 1
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(home.parent / "run-blue/s"))
            assert ask(home, "drained", timeout=1)["seconds"] >= 1
        with pytest.raises(ReleaseError, match="after the switch, /page answered 404"):
            ask(home, "drained", paths=["/healthz", "/page"])


def test_a_failed_slot_ends_its_requests_too(home: Path, systemd: Systemd) -> None:
    """Catches requests that are cut off by a way back, and one that waits for the slot that it goes to, though that runs."""
    move(home)
    select(home, "two")
    for state in ("started", "live"):
        ask(home, state, slot="green")
    with server(home.parent / "run-green/s"), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(home.parent / "run-green/s"))
        thread = threading.Thread(target=ask, args=(home, "returned"), kwargs={"slot": "green", "timeout": 10})
        thread.start()
        assert app_slot.until(5, lambda: os.readlink(home / "web/live") == "blue")
        assert systemd.slots(systemd.active) == {"blue", "green"}
        client.close()
        thread.join(5)
    assert systemd.slots(systemd.active) == {"blue"}


def test_the_old_slot_is_asked_where_it_is_pinned(home: Path, systemd: Systemd) -> None:
    """Catches a stop while somebody is served by an application server that had its socket elsewhere than the new one."""
    move(home)
    select(home, "two")
    other = f"{home.parent}/own-{{slot}}"
    ask(home, "started", slot="green", run=other)
    ask(home, "live", slot="green")
    with server(home.parent / "own-green/s", healthz=200), server(home.parent / "run-blue/s", healthz=200):
        ask(home, "answering", slot="green", run=other)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(home.parent / "run-blue/s"))
            assert ask(home, "drained", timeout=1, run=other)["seconds"] >= 1
        assert ask(home, "drained", run=other)["seconds"] < 1


def test_who_watches_a_slot_keeps_nobody_waiting(home: Path, systemd: Systemd) -> None:
    with alone(home), server(home.parent / "run-blue/s", healthz=200):
        thread = threading.Thread(target=ask, args=(home, "answering"), kwargs={"slot": "blue"}, daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
