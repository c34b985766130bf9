"""Lock dependencies anew with uv: for every platform, with hashes, and naming no index (the operator's environment decides)."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tools.console import ROOT, Problem, run_command, say

FRAMEWORKS = ("django", "fastapi", "flask", "tornado")
# Lock file: what it locks, with extras
LOCKS = {
    "requirements.lock": ["pyproject.toml"],
    "app/requirements.lock": ["app/pyproject.toml"],
    "app/requirements-dev.lock": ["app/pyproject.toml", "--extra", "dev"],
    "molecule/resources/audit/requirements.lock": ["molecule/resources/audit/requirements.in"],
    # Each with all the servers that it runs under
    **{f"molecule/servers/{name}/requirements.lock": [f"molecule/servers/{name}/requirements.in"] for name in FRAMEWORKS},
}
OPTIONS = ["--quiet", "--universal", "--generate-hashes", "--no-emit-index-url", "--no-header", "--python-version", "3.11"]


def lock(target: str, *, upgrade: bool) -> None:
    uv = Path(sys.executable).parent / "uv"
    more = ["--upgrade"] if upgrade else []
    command = [str(uv), "pip", "compile", *OPTIONS, *more, "-o", target, *LOCKS[target]]
    if subprocess.run(command, check=False, cwd=ROOT).returncode != 0:
        raise Problem(f"{target} was not locked", "uv's message is above; it takes indexes, proxies and CAs from its environment")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("locks", nargs="*", metavar="LOCK", help=f"default: {' '.join(LOCKS)}")
    parser.add_argument("--keep", action="store_true", help="change only what the declarations ask for, upgrade nothing")
    options = parser.parse_args()
    if unknown := set(options.locks) - set(LOCKS):
        raise Problem(f"no lock file {', '.join(sorted(unknown))}", f"Choose from: {' '.join(LOCKS)}")
    for target in options.locks or LOCKS:
        lock(target, upgrade=not options.keep)
        say(f"locked {target}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
