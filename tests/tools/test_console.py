"""What the tools say when things go well and when they do not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from docker.errors import APIError
from requests.exceptions import ConnectionError as RequestsConnectionError

from tools.console import Phases, Problem, duration, run_command, run_logged


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.04, "0.0 s"), (3.14, "3.1 s"), (59.94, "59.9 s"), (60.2, "1 min 00 s"), (125, "2 min 05 s")]
)
def test_durations_are_for_people(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_a_phase_shows_number_time_and_note(capsys: pytest.CaptureFixture[str]) -> None:
    phases = Phases(2)
    with phases.phase("Docker engine") as notes:
        notes.append("was running")
    assert capsys.readouterr().out == "[1/2] Docker engine ... 0.0 s (was running)\n"


def test_a_streaming_phase_repeats_its_title_behind_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    with Phases(1).phase("site.yml", streams=True):
        print("PLAY")
    assert capsys.readouterr().out.splitlines() == ["[1/1] site.yml", "PLAY", "[1/1] site.yml ... 0.0 s"]


def test_a_failed_phase_says_so_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        with Phases(1).phase("Host"):
            raise Problem("the port is taken", "choose another\nmake up", code=4)

    assert run_command(main) == 4
    shown = capsys.readouterr()
    assert "[1/1] Host ... failed after" in shown.out
    assert shown.err == "\nerror: the port is taken\n\nWhat to do:\n  choose another\n  make up\n"


@pytest.mark.parametrize("error", [APIError("500 Server Error:\nno space left"), RequestsConnectionError("no space left")])
def test_a_failing_engine_is_a_message_with_a_remedy(capsys: pytest.CaptureFixture[str], error: Exception) -> None:
    def main() -> int:
        raise error

    assert run_command(main) == 1
    first, _, *remedy = capsys.readouterr().err.strip().splitlines()
    assert first.startswith("error: the Docker engine failed")
    assert first.endswith("no space left")
    assert "journalctl -u docker" in "".join(remedy)
    assert "make down && make up" in "".join(remedy)


def test_a_failed_command_shows_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "deep" / "log"
    with pytest.raises(Problem, match=r"ended with 3:\n.*mirror is down") as raised:
        run_logged([sys.executable, "-c", "print('mirror is down'); raise SystemExit(3)"], log)
    assert raised.value.remedy == f"Read {log}"
