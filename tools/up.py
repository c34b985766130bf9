"""Start the local environment: one host in a container, converged by the very site.yml that production uses."""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container

from tools import access, engine, galaxy, host, image
from tools.console import LOCAL, LOGS, ROOT, Phases, Problem, duration, run_command, say
from tools.runs import CHECKOUT_LABEL

NAME = os.environ.get("GROUNDCREW_NAME") or "groundcrew-local"
# Ports of the host, the variable that moves each on this machine, and where it is otherwise
PORTS = {80: ("GROUNDCREW_HTTP_PORT", 8080), 443: ("GROUNDCREW_HTTPS_PORT", 8443), 22: ("GROUNDCREW_SSH_PORT", 2222)}
RECAP = re.compile(r"^(?P<host>\S+)\s+: ok=\d+\s+changed=(?P<changed>\d+)\s", re.MULTILINE)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def ports() -> dict[int, int]:
    """Port of the host → port on 127.0.0.1."""
    chosen = {}
    for inside, (variable, default) in PORTS.items():
        text = os.environ.get(variable) or str(default)
        if not text.isdigit() or not 0 < int(text) < 65536:
            raise Problem(f"{variable} is {text!r}", f"A port from 1 to 65535, {default} by default")
        chosen[inside] = int(text)
    return chosen


def release() -> str:
    chosen = os.environ.get("GROUNDCREW_RELEASE") or image.RELEASES[0]
    if chosen not in image.RELEASES:
        raise Problem(f"GROUNDCREW_RELEASE is {chosen!r}", f"Choose from: {' '.join(image.RELEASES)}")
    return chosen


def refuse_taken_ports(wanted: dict[int, int]) -> None:
    for inside, port in wanted.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                variable = PORTS[inside][0]
                raise Problem(
                    f"port {port} of 127.0.0.1 cannot be used: {error.strerror}",
                    f"ss -lntp 'sport = :{port}'      # shows who has it\nor choose another: make up {variable}={port + 1000}",
                ) from error


def published(container: Container) -> dict[int, int]:
    """The ports that a container was made with."""
    bindings = container.attrs["HostConfig"]["PortBindings"] or {}
    return {int(inside.split("/")[0]): int(outside[0]["HostPort"]) for inside, outside in bindings.items()}


def ensure_host(client: docker.DockerClient, wanted: dict[int, int]) -> str:
    """Make the host run; returns how it came to run."""
    again = "make down && make up      # a fresh host"
    try:
        container = client.containers.get(NAME)
    except NotFound:
        refuse_taken_ports(wanted)
        labels = {CHECKOUT_LABEL: str(ROOT)}
        try:
            container = host.start(client, NAME, release(), labels=labels, ports=wanted)
        except APIError as error:
            raise Problem(f"the container {NAME} does not start: {error.explanation}", again) from error
        host.wait_until_up(container)
        return f"{NAME}, started"
    if (owner := container.labels.get(CHECKOUT_LABEL, "nobody known")) != str(ROOT):
        raise Problem(
            f"a container {NAME} is there that belongs to {owner}",
            f"make -C {owner} down      # or: docker rm -f {NAME}",
        )
    if published(container) != wanted:
        raise Problem(
            f"{NAME} was made with other ports: {published(container)}, now wanted: {wanted}",
            f"Set GROUNDCREW_HTTPS_PORT, GROUNDCREW_HTTP_PORT and GROUNDCREW_SSH_PORT as before; or: {again}",
        )
    if container.status == "running":
        host.wait_until_up(container)
        return f"{NAME}, running already"
    container.start()
    host.wait_until_up(container)
    return f"{NAME}, started again"


def stream(command: Sequence[str], log: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Run a command with its output on the terminal and in a log; returns its exit code and output."""
    log.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(COLOUR.sub("", line))
            out.write(lines[-1])
    return process.wait(), "".join(lines)


def changed_tasks(output: str) -> int:
    """How many tasks changed something, by the recap of a run."""
    return sum(int(match["changed"]) for match in RECAP.finditer(output))


def converge(arguments: Sequence[str]) -> int:
    """Run site.yml; returns how many tasks changed something."""
    environment = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        environment["ANSIBLE_FORCE_COLOR"] = "true"
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "inventories/local", "site.yml", *arguments]
    log = LOGS / "site.log"
    code, output = stream(command, log, environment)
    if code:
        raise Problem(
            f"ansible-playbook ended with {code}; the failed task is shown above, before the recap (also in {log})",
            "make up       # goes on from there, once the cause is mended\nmake ssh      # to look at the host",
            code,
        )
    return changed_tasks(output)


def summary(wanted: dict[int, int], changed: int, took: float) -> str:
    login = " ".join(access.ssh_command(wanted[22], ROOT))
    return f"""
Up after {duration(took)}: {f"{changed} tasks changed something" if changed else "nothing changed"}.

  The application    https://localhost:{wanted[443]}      (http://localhost:{wanted[80]} redirects to it)
  Is all well?       curl --cacert .local/ca.pem https://localhost:{wanted[443]}/readyz      (the sample's path)
  In a browser       import .local/ca.pem as a certificate authority, or accept the warning
  Log in to it       make ssh
                     {login}
  Take it down       make down
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ansible", nargs="*", help="passed on to ansible-playbook, after --")
    arguments = parser.parse_args().ansible
    wanted, chosen_release = ports(), release()
    phases = Phases(6)
    with phases.phase("Ansible collections") as notes:
        notes.append(galaxy.ensure())
    with phases.phase("Docker engine") as notes:
        notes.append(engine.ensure())
        client = engine.connect()
    with phases.phase("Host image") as notes:
        notes.append(image.ensure(client, chosen_release))
    with phases.phase("Host") as notes:
        notes.append(ensure_host(client, wanted))
    with phases.phase("SSH key and secrets") as notes:
        access.private_directory(LOCAL)
        made = access.make_secrets() + access.make_key()
        access.know(access.admit(client.containers.get(NAME), "127.0.0.1", wanted[22]))
        access.check_login(wanted[22])
        notes.append("made in .local/" if made else "there already")
    with phases.phase("ansible-playbook -i inventories/local site.yml", streams=True) as notes:
        changed = converge(arguments)
        notes.append(f"changed={changed}")
    say(summary(wanted, changed, phases.elapsed()))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
