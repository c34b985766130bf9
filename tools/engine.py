"""Make sure that a Docker engine answers: use it, install it, start it, or say exactly what to do."""

from __future__ import annotations

import argparse
import getpass
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import docker
from docker.errors import DockerException

from tools import packages
from tools.console import ENGINE_LOG, LOGS, Problem, duration, run_command, run_logged, say

# Beside the engine, not in .local/: it must outlive `make down` and must not outlive the machine
PID_FILE = Path("/run/groundcrew-dockerd.pid")
SOCKET = Path("/var/run/docker.sock")
START_SECONDS = 60
# Building and importing images are single requests that take their time
REQUEST_SECONDS = 600


def connect(timeout: int = REQUEST_SECONDS) -> docker.DockerClient:
    """A client of the engine that DOCKER_HOST names, else of the local one; raises DockerException."""
    client = docker.from_env(timeout=timeout)
    client.ping()
    return client


def answers() -> bool:
    try:
        connect(timeout=10).close()
    except DockerException:
        return False
    return True


def remedy_without_root(socket: Path = SOCKET) -> Problem | None:
    """What a user who is not root has to do, or None for root."""
    if os.geteuid() == 0:
        return None
    user = getpass.getuser()
    if socket.exists() and not os.access(socket, os.W_OK):
        return Problem(
            f"a Docker engine is there, but {user} may not use it",
            f"sudo usermod -aG docker {user}\nnewgrp docker        # or log out and in again\nmake up",
        )
    rootless = Path(os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.geteuid()}")) / "docker.sock"
    if rootless.exists():
        return Problem(
            "only a rootless Docker engine is there",
            f"export DOCKER_HOST=unix://{rootless}\nmake up",
        )
    if shutil.which("dockerd"):
        start = "sudo systemctl start docker" if systemd_is_init() else "sudo sh -c 'dockerd >/var/log/dockerd.log 2>&1 &'"
        return Problem(
            f"the Docker engine is not running, and {user} may not start it",
            f"{start}\nmake up",
        )
    return Problem(
        f"no Docker engine answers, and {user} may not install one",
        f"sudo apt-get install docker.io      # Debian, Ubuntu; elsewhere: your distribution's Docker engine\n"
        f"sudo usermod -aG docker {user}\nnewgrp docker        # or log out and in again\nmake up",
    )


def systemd_is_init() -> bool:
    return Path("/run/systemd/system").is_dir()


def install() -> None:
    """Install Debian's engine, with its client where that is a package of its own (Debian 13)."""
    if not packages.may_install():
        raise Problem(
            "no Docker engine is installed, and this is no Debian or Ubuntu machine",
            "Install your distribution's Docker engine and start it, or set DOCKER_HOST to one that runs.\nmake up",
        )
    log = LOGS / "docker-install.log"
    remedy = f"Read {log}; or install a Docker engine by hand, then: make up"
    packages.install(["docker.io"], log, remedy)
    client = subprocess.run(["apt-cache", "show", "docker-cli"], check=False, capture_output=True)
    if client.returncode == 0:
        packages.install(["docker-cli"], log, remedy)


def start() -> None:
    """Start the engine, under systemd where that is PID 1, by hand elsewhere, and wait until it answers."""
    if systemd_is_init():
        log = "journalctl -u docker"
        run_logged(
            ["systemctl", "start", "docker"],
            LOGS / "docker-start.log",
            remedy="journalctl -u docker -n 50      # says why it does not start",
        )
        process = None
    else:
        log = str(ENGINE_LOG)
        with ENGINE_LOG.open("ab") as out:
            # A session of its own: it must outlive make and the terminal
            process = subprocess.Popen(
                ["dockerd"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
            )
        PID_FILE.write_text(f"{process.pid}\n", encoding="ascii")
    until = time.monotonic() + START_SECONDS
    while not answers():
        if process is not None and process.poll() is not None:
            PID_FILE.unlink(missing_ok=True)
            raise Problem(
                f"dockerd ended with {process.returncode} when it was started",
                f"Read {log}",
            )
        if time.monotonic() > until:
            raise Problem(
                f"the Docker engine was started but does not answer after {START_SECONDS} s",
                f"Read {log}",
            )
        time.sleep(0.5)


def ensure() -> str:
    """Make an engine answer; returns how it came to answer."""
    if answers():
        return "was running"
    if host := os.environ.get("DOCKER_HOST"):
        raise Problem(
            f"no Docker engine answers at DOCKER_HOST={host}",
            "Start that engine, or: unset DOCKER_HOST\nmake up",
        )
    if problem := remedy_without_root():
        raise problem
    # A machine may hold only a docker client: the engine is what counts
    installed = shutil.which("dockerd") is not None
    if not installed:
        install()
        if answers():
            return "installed"
    start()
    return "started" if installed else "installed and started"


def started_by_us() -> int | None:
    """The process id of the dockerd that `start` started by hand, while it lives."""
    try:
        pid = int(PID_FILE.read_text(encoding="ascii"))
        name, state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").partition("(")[2].split(") ", 1)
    except (OSError, ValueError):
        return None
    # A zombie has ended, though nobody has asked how
    return pid if name == "dockerd" and not state.startswith("Z") else None


def stop_if_ours() -> str:
    """Stop the engine where `start` started it by hand and nobody else runs a container on it."""
    pid = started_by_us()
    if pid is None:
        return "engine left as it was found"
    if others := [str(container.name) for container in connect().containers.list()]:
        return f"engine left running for {', '.join(others)}"
    os.kill(pid, 15)
    until = time.monotonic() + START_SECONDS
    while started_by_us() is not None:
        if time.monotonic() > until:
            raise Problem(f"dockerd (process {pid}) does not end", f"Read {ENGINE_LOG}")
        time.sleep(0.2)
    PID_FILE.unlink(missing_ok=True)
    return "engine stopped"


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    begin = time.monotonic()
    how = ensure()
    say(f"Docker engine {how} ({duration(time.monotonic() - begin)})")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
