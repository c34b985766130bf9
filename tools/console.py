"""What the tools say and how they fail: phases with their time, problems with their remedy."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from docker.errors import DockerException
from requests.exceptions import RequestException

ROOT = Path(__file__).resolve().parent.parent
LOCAL = ROOT / ".local"
CACHE = ROOT / ".cache"
LOGS = CACHE / "logs"
# Of an engine that `make up` has started by hand
ENGINE_LOG = Path("/var/log/groundcrew-dockerd.log")
ENGINE_REMEDY = f"""journalctl -u docker -n 50      # the engine's log; of one that make up has started by hand: {ENGINE_LOG}
make down && make up            # a fresh host"""


class Problem(Exception):
    """Something the operator can mend: what is wrong, what to do about it, and the exit code."""

    def __init__(self, what: str, remedy: str = "", code: int = 1) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.code = code


def one_line(error: BaseException) -> str:
    """What an error says, however it is broken into lines."""
    return " ".join(str(error).split())


def say(text: str = "") -> None:
    print(text, flush=True)


def fail(problem: Problem) -> int:
    """Print a problem to stderr and return its exit code."""
    print(f"\nerror: {problem.what}", file=sys.stderr)
    if problem.remedy:
        print("\nWhat to do:", file=sys.stderr)
        for line in problem.remedy.splitlines():
            print(f"  {line}", file=sys.stderr)
    sys.stderr.flush()
    return problem.code


def run_command(main: Callable[[], int]) -> int:
    """Run a tool's main; a problem, a failing engine or Ctrl-C becomes a message and an exit code instead of a traceback."""
    # What the tools start finds the toolchain, also where nobody has activated it
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    try:
        return main()
    except Problem as problem:
        return fail(problem)
    except (DockerException, RequestException) as error:
        return fail(Problem(f"the Docker engine failed or did not answer: {one_line(error)}", ENGINE_REMEDY))
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


def duration(seconds: float) -> str:
    """A time for people: 3.1 s, 2 min 05 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


class Phases:
    """Numbered phases, each shown with its outcome and its time."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.number = 0
        self.started = time.monotonic()

    def elapsed(self) -> float:
        return time.monotonic() - self.started

    @contextmanager
    def phase(self, title: str, *, streams: bool = False) -> Iterator[list[str]]:
        """Show a phase; what is appended to the yielded list is shown behind its title.

        A phase that streams output of its own gets a line before and a line after it.
        """
        self.number += 1
        head = f"[{self.number}/{self.total}] {title}"
        print(head, end="\n" if streams else " ... ", flush=True)
        begin = time.monotonic()
        notes: list[str] = []
        try:
            yield notes
        except BaseException:
            print(
                f"{head if streams else ''} failed after {duration(time.monotonic() - begin)}".lstrip(),
                flush=True,
            )
            raise
        note = f" ({', '.join(notes)})" if notes else ""
        print(
            f"{head + ' ... ' if streams else ''}{duration(time.monotonic() - begin)}{note}",
            flush=True,
        )


def tail(path: Path, lines: int = 30) -> str:
    """The last lines of a log file."""
    if not path.exists():
        return ""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def run_logged(command: Sequence[str], log: Path, *, remedy: str = "", settings: dict[str, str] | None = None) -> None:
    """Run a command with its output in a log file, with these settings in its environment; where it fails, the problem shows the log's end."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as out:
        out.write(f"$ {' '.join(command)}\n")
        out.flush()
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", **(settings or {})}
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=env,
        )
    if done.returncode != 0:
        raise Problem(
            f"`{' '.join(command)}` ended with {done.returncode}:\n{tail(log, 15)}",
            remedy or f"Read {log}",
        )
