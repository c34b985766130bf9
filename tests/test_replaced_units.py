"""Which services run what an update has replaced, of processes that really do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "roles/upgrades/files/replaced_units.sh"
SYSTEMCTL = """#!/bin/sh
case $1 in
list-units) printf '%s loaded active running\\n' etcd.service redis-server@broker.service ;;
esac
"""


@pytest.mark.parametrize("replaced", [True, False])
def test_a_unit_with_a_replaced_program_is_found(tmp_path: Path, replaced: bool) -> None:
    """Catches a server that goes on with the hole that an update has closed, and one that restarts without need."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/systemctl").write_text(SYSTEMCTL)
    (tmp_path / "bin/systemctl").chmod(0o755)
    program = tmp_path / "server"
    shutil.copy("/usr/bin/sleep", program)
    with subprocess.Popen([str(program), "60"]) as running:
        try:
            for unit, process in {"etcd.service": os.getpid(), "redis-server@broker.service": running.pid}.items():
                known = tmp_path / "proc" / str(process)
                known.mkdir(parents=True)
                (known / "cgroup").write_text(f"0::/system.slice/{unit}\n")
                (known / "maps").symlink_to(f"/proc/{process}/maps")
            if replaced:
                shutil.copy("/usr/bin/sleep", tmp_path / "new")
                (tmp_path / "new").rename(program)
            given = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "PROC": f"{tmp_path}/proc", "PACKAGES": f"{tmp_path}/"}
            done = subprocess.run(
                ["/bin/bash", str(SCRIPT), "etcd.service", "redis-server@*.service"],
                env=os.environ | given,
                capture_output=True,
                text=True,
                check=True,
                timeout=30,
            )
        finally:
            running.kill()
    assert done.stdout.split() == (["redis-server@broker.service"] if replaced else [])
