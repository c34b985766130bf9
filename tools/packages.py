"""Programs of the operating system that the tools need: installed with apt where that may be, else asked for."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tools.console import LOGS, Problem, run_logged


def may_install() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(packages: list[str], log: Path, remedy: str) -> None:
    """Install Debian packages; a failure shows the remedy."""
    run_logged(["apt-get", "update"], log, remedy=remedy)
    run_logged(
        ["apt-get", "install", "--yes", "--no-install-recommends", *packages],
        log,
        remedy=remedy,
    )


def need(program: str, packages: list[str], alternative: str = "") -> None:
    """Make a program be there, or say how to get it."""
    if shutil.which(program):
        return
    remedy = f"apt-get install {' '.join(packages)}      # as root" + (f"\n{alternative}" if alternative else "")
    if not may_install():
        raise Problem(f"the program {program} is missing", remedy)
    install(packages, LOGS / "packages.log", remedy)
