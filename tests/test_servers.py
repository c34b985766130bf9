"""How each application server is started, and that the docs say of each what the role's data says."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.rendering import render, value
from tools import servers

NAMES = [name for name in servers.load()["servers"] if name != "command"]
RUN = "/run/shop"


def start(tmp_path: Path, slot: str = "blue", **variables: Any) -> tuple[list[str], str]:
    """What the script starts, word for word, and how its socket is made."""
    given = {"gunicorn_name": "shop", "gunicorn_application": "shop.web:app", **variables}
    text = render("gunicorn", "serve.j2", **given)
    # The shell itself tells what it makes of the quotes
    script = tmp_path / "serve"
    before, sign, command = text.partition("\nexec ")
    while command.startswith("3<&-"):
        more, sign, command = command.partition("\nexec ")
        before += f"\n{more}"
    script.write_text(f"{before}\nprintf '%s\\0' {command}")
    done = subprocess.run(["/bin/sh", script, slot], capture_output=True, text=True, check=True)
    assert sign
    return done.stdout.split("\0")[:-1], before


def interface(server: str) -> str:
    return str(servers.load()["servers"][server]["interfaces"][-1])


@pytest.mark.parametrize("server", NAMES)
def test_a_server_runs_from_the_release_that_its_slot_is_pinned_to(tmp_path: Path, server: str) -> None:
    """Catches a server of the host, or of the release that is current and not live."""
    words, _ = start(tmp_path, gunicorn_server=server, gunicorn_interface=interface(server))
    assert words[0].startswith("/srv/shop/web/blue/release/venv/bin/")
    assert not [word for word in words if "{" in word], "a placeholder is left"


@pytest.mark.parametrize("server", NAMES)
def test_a_server_takes_the_socket_of_its_slot(tmp_path: Path, server: str) -> None:
    """Catches a server that opens a port, or a socket where the web server does not look."""
    words, before = start(tmp_path, "green", gunicorn_server=server, gunicorn_interface=interface(server))
    slot = value("gunicorn", "__gunicorn_slot", gunicorn_name="shop", gunicorn_server=server, gunicorn_interface=interface(server))
    path = f"{slot['run'].replace('{slot}', 'green')}/web.sock"
    assert f"socket={slot['run'].replace('{slot}', '$1')}/web.sock" in before
    own = servers.load()["servers"][server]["socket"] == "own"
    assert ("LISTEN_FDS" in before) == own
    assert (path in words) == (own or server == "uwsgi")


def test_settings_reach_each_server_in_its_own_words(tmp_path: Path) -> None:
    words, _ = start(tmp_path, gunicorn_server="uwsgi", gunicorn_workers=3, gunicorn_threads=7, gunicorn_graceful_timeout=21)
    told = " ".join(words)
    assert "--processes 3" in told
    assert "--threads 7" in told
    assert "--worker-reload-mercy 21" in told
    words, _ = start(tmp_path, gunicorn_server="uvicorn", gunicorn_interface="asgi", gunicorn_access_log=True)
    assert "--no-access-log" not in words
    words, _ = start(tmp_path, gunicorn_server="granian", gunicorn_interface="asgi", gunicorn_extra_settings={"http1-buffer-size": 9000})
    assert words[words.index("--http1-buffer-size") + 1] == "9000"
    assert "--blocking-threads" not in words


def test_a_setting_of_nothing_is_a_setting(tmp_path: Path) -> None:
    """Catches an extra setting that is left out because it is 0 or empty; of the role's own ones, these mean that there is none."""
    extra = {"backlog": 0, "root-path": "", "reload": False, "ws": None, "no-server-header": True}
    words, _ = start(tmp_path, gunicorn_server="uvicorn", gunicorn_interface="asgi", gunicorn_extra_settings=extra)
    assert words[words.index("--backlog") + 1] == "0"
    assert words[words.index("--root-path") + 1] == ""
    assert words[words.index("--no-server-header") + 1].startswith("--")
    assert not {"--reload", "--ws"} & {*words}
    words, _ = start(
        tmp_path, gunicorn_server="hypercorn", gunicorn_interface="asgi", gunicorn_max_requests=0, gunicorn_extra_settings=extra
    )
    assert "--max-requests" not in words


@pytest.mark.parametrize("server", ["uvicorn", "granian"])
def test_a_factory_is_called(tmp_path: Path, server: str) -> None:
    """Catches a server that serves the function, not what it makes."""
    words, _ = start(tmp_path, gunicorn_server=server, gunicorn_interface="asgi", gunicorn_application="shop:create()")
    assert "--factory" in words
    assert words[-1] == "shop:create"


def test_a_command_is_taken_word_for_word(tmp_path: Path) -> None:
    """Catches a word that the shell reads, and a placeholder inside of one."""
    command = ["python", "-m", "board", "--socket={socket}", "--workers={workers}", 'it\'s $HOME `x` "y"', ""]
    words, before = start(tmp_path, gunicorn_server="command", gunicorn_application="", gunicorn_command=command, gunicorn_workers=2)
    assert words == [*command[:3], f"--socket={RUN}/own-blue/web/web.sock", "--workers=2", *command[5:]]
    assert "umask 0007" in before
    words, before = start(tmp_path, gunicorn_server="command", gunicorn_application="", gunicorn_command=["serve", "--fd", "{fd}"])
    assert shlex.join(words) == "serve --fd 3"
    assert "umask" not in before


def test_waitress_is_told_whose_headers_count() -> None:
    text = render("gunicorn", "waitress_slot.py.j2", gunicorn_name="shop", gunicorn_application="shop:app", gunicorn_server="waitress")
    compile(text, "waitress_slot.py", "exec")
    assert '\\"trusted_proxy\\": \\"localhost\\"' in text
    assert '\\"threads\\": 4' in text


def test_an_asgi_module_says_so_itself() -> None:
    """Catches a Django application that runs as the other kind than its target's."""
    for application, kind in {
        "site.asgi:application": "asgi",
        "asgi:app": "asgi",
        "site.wsgi:application": "wsgi",
        "myasgi:app": "wsgi",
    }.items():
        assert value("gunicorn", "gunicorn_interface", gunicorn_name="site", gunicorn_application=application) == kind


def test_the_docs_say_what_the_data_says() -> None:
    """Catches a table that lies: `make docs` writes it anew."""
    text = servers.DOCS.read_text(encoding="utf-8")
    assert servers.documented() == text
    assert servers.combinations_table() in text
    assert servers.differences_table() in text


def test_every_server_can_be_chosen() -> None:
    """Catches a server in the data that no inventory may name."""
    assert servers.choices() == list(servers.load()["servers"])
