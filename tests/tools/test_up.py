"""`make up`: ports, an existing host, the recap of a run, and what it leaves in .local/."""

from __future__ import annotations

import socket
import stat
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from docker.errors import NotFound

from tools import access, host, up
from tools.console import ROOT, Problem
from tools.runs import CHECKOUT_LABEL

WANTED = {80: 8080, 443: 8443, 22: 2222}
RECAP = """
PLAY RECAP *********************************************************************
local                      : ok=61   changed={}    unreachable=0    failed=0    skipped=4    rescued=0    ignored=0
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, _ in up.PORTS.values():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.delenv("GROUNDCREW_RELEASE", raising=False)


def test_ports_have_defaults_and_can_be_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDCREW_HTTPS_PORT", "9443")
    assert up.ports() == WANTED | {443: 9443}


@pytest.mark.parametrize("port", ["0", "65536", "https", "-1"])
def test_an_impossible_port_is_refused(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv("GROUNDCREW_SSH_PORT", port)
    with pytest.raises(Problem, match="GROUNDCREW_SSH_PORT is"):
        up.ports()


def test_an_unknown_release_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDCREW_RELEASE", "noble")
    with pytest.raises(Problem, match="GROUNDCREW_RELEASE is 'noble'"):
        up.release()


def test_a_taken_port_is_refused_with_the_variable_that_moves_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Problem, match=f"port {port} of 127.0.0.1 cannot be used") as raised:
            up.refuse_taken_ports({443: port})
    assert "make up GROUNDCREW_HTTPS_PORT=" in raised.value.remedy


def engine_with(container: MagicMock | None) -> MagicMock:
    client = MagicMock()
    client.containers.get.side_effect = NotFound("none") if container is None else None
    client.containers.get.return_value = container
    return client


def existing(status: str, owner: str = str(ROOT), http: str = "8080") -> MagicMock:
    bindings = {"80/tcp": [{"HostPort": http}], "443/tcp": [{"HostPort": "8443"}], "22/tcp": [{"HostPort": "2222"}]}
    container = MagicMock(status=status, labels={CHECKOUT_LABEL: owner}, attrs={"HostConfig": {"PortBindings": bindings}})
    container.name = up.NAME
    return container


def test_a_running_host_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "wait_until_up", lambda container: None)
    container = existing("running")
    assert up.ensure_host(engine_with(container), WANTED).endswith("running already")
    container.start.assert_not_called()


def test_a_stopped_host_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "wait_until_up", lambda container: None)
    container = existing("exited")
    assert up.ensure_host(engine_with(container), WANTED).endswith("started again")
    container.start.assert_called_once_with()


def test_another_checkouts_host_is_not_taken_over() -> None:
    with pytest.raises(Problem, match="belongs to /elsewhere"):
        up.ensure_host(engine_with(existing("running", owner="/elsewhere")), WANTED)


def test_a_host_with_other_ports_is_not_used_silently() -> None:
    with pytest.raises(Problem, match="other ports"):
        up.ensure_host(engine_with(existing("running", http="9080")), WANTED)


@pytest.mark.parametrize(("text", "changed"), [(RECAP.format("0 "), 0), (RECAP.format("17"), 17), ("no recap", 0)])
def test_the_recap_says_how_much_has_changed(text: str, changed: int) -> None:
    assert up.changed_tasks(text) == changed


def test_the_end_says_whether_anything_changed_and_where_it_is() -> None:
    text = up.summary(WANTED, 0, 12.0)
    assert "Up after 12.0 s: nothing changed." in text
    assert "curl --cacert .local/ca.pem https://localhost:8443/readyz" in text
    assert "ssh -i .local/ssh/id_ed25519" in text
    assert "make down" in text


def test_output_is_shown_as_it_comes_and_logged_without_colour(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "site.log"
    code, output = up.stream([sys.executable, "-c", r"print('\x1b[0;32mok: [local]\x1b[0m'); raise SystemExit(2)"], log, {})
    assert code == 2
    assert capfd.readouterr().out == "\x1b[0;32mok: [local]\x1b[0m\n"
    assert output == log.read_text() == "ok: [local]\n"


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A .local/ of the test's own."""
    monkeypatch.setattr(access, "SECRETS_DIRECTORY", tmp_path / "secrets")
    monkeypatch.setattr(access, "SSH_DIRECTORY", tmp_path / "ssh")
    monkeypatch.setattr(access, "KEY", tmp_path / "ssh" / "id_ed25519")
    return tmp_path


def test_secrets_are_made_once_and_readable_by_their_owner_only(local: Path) -> None:
    assert access.make_secrets() == len(access.SECRETS)
    files = {path.name: path.read_text() for path in (local / "secrets").iterdir()}
    assert set(files) == set(access.SECRETS)
    assert len(set(files.values())) == len(files)
    assert all(len(text.strip()) >= 32 for text in files.values())
    assert {stat.S_IMODE(path.stat().st_mode) for path in (local / "secrets").iterdir()} == {0o600}
    assert access.make_secrets() == 0
    assert files == {path.name: path.read_text() for path in (local / "secrets").iterdir()}


def test_the_key_is_made_once(local: Path) -> None:
    assert access.make_key()
    key = (local / "ssh" / "id_ed25519").read_text()
    assert not access.make_key()
    assert key == (local / "ssh" / "id_ed25519").read_text()


def test_known_hosts_holds_the_hosts_own_keys_under_its_port() -> None:
    keys = "ssh-rsa BBBB root@x\nssh-ed25519 AAAA root@x\n"
    assert access.known_hosts_lines(keys, "127.0.0.1", 2222) == "[127.0.0.1]:2222 ssh-ed25519 AAAA\n[127.0.0.1]:2222 ssh-rsa BBBB\n"
    assert access.known_hosts_lines("ssh-ed25519 AAAA", "127.0.0.1", 22) == "127.0.0.1 ssh-ed25519 AAAA\n"
