"""Kill (SIGKILL) runs of site.yml half-way, each once it has changed so many things, until one comes through."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.console import ROOT, Problem, run_command, say

# A run that changes nothing new is never killed, so there are at most as many as there are things to change
MOST_RUNS = 300


def run(command: Sequence[str], changes: int) -> tuple[int | None, list[str]]:
    """Run until so many lines have said `changed`, then kill all of it; returns the exit code, None if killed, and the output."""
    # A group of its own, so that nothing of it lives on
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    seen, lines = 0, []
    for line in process.stdout or ():
        lines.append(line.rstrip())
        seen += line.startswith("changed: [")
        if seen == changes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None, lines
    return process.wait(), lines


def last_task(lines: Sequence[str]) -> str:
    return next(
        (line.rstrip("* ") for line in reversed(lines) if line.startswith(("TASK [", "RUNNING HANDLER ["))), "before the first task"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inventory", required=True)
    parser.add_argument("--changes", type=int, default=1, help="what a run may change before it is killed; 1 by default")
    chosen = parser.parse_args()
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", chosen.inventory, "site.yml"]
    for number in range(MOST_RUNS):
        code, lines = run(command, chosen.changes)
        if code is None:
            say(f"run {number + 1} killed in {last_task(lines)}")
        elif code:
            failed = "\n".join(lines[-40:])
            raise Problem(f"run {number + 1} failed, after the one before it was killed:\n{failed}")
        elif number:
            say(f"run {number + 1} came through")
            return 0
        else:
            raise Problem(
                f"no run was killed: site.yml changes fewer than {chosen.changes} things", "Choose fewer --changes, or a bare host"
            )
    raise Problem(f"no run came through within {MOST_RUNS}")


if __name__ == "__main__":
    sys.exit(run_command(main))
