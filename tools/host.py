"""One systemd host in a container: the options it runs with, in one place, and waiting until it is up."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from typing import Literal, TypedDict

import docker
from docker.models.containers import Container

from tools import engine, image
from tools.console import Problem, run_command

BOOT_SECONDS = 90
# A container sees /sys/fs/cgroup read-only, also where the cgroup namespace is its own; systemd has to write there
INIT_V2 = [
    "/bin/sh",
    "-c",
    "mount -o remount,rw /sys/fs/cgroup && exec /lib/systemd/systemd",
]
INIT_V1 = ["/lib/systemd/systemd"]


class HostOptions(TypedDict):
    """How a host runs, in the words of community.docker.docker_container."""

    image: str
    command: list[str]
    env: dict[str, str]
    capabilities: list[str]
    security_opts: list[str]
    cgroupns_mode: Literal["host", "private"]
    tmpfs: list[str]
    volumes: list[str]
    stop_signal: str


def apt_volume(release: str) -> str:
    """The named volume in which all hosts of a release share the packages they have downloaded."""
    return f"groundcrew-apt-{release}"


def code_volume(release: str) -> str:
    """The one in which hosts of tests keep the compiled code of Ansible's modules: molecule/resources/create.yml."""
    return f"groundcrew-code-{release}"


def options(release: str, cgroup_version: str) -> HostOptions:
    """The options of a host of this release.

    Named capabilities instead of `privileged`: a machine that lacks one capability refuses the latter. SYS_PTRACE is for
    units with ProtectProc=invisible and PrivateUsers=yes, Debian's redis among them.
    """
    volumes = [f"{apt_volume(release)}:/var/cache/groundcrew/apt"]
    if cgroup_version == "1":
        volumes.append("/sys/fs/cgroup:/sys/fs/cgroup:rw")
    return {
        "image": image.host_image(release),
        "command": INIT_V1 if cgroup_version == "1" else INIT_V2,
        "env": {"container": "docker"},
        "capabilities": ["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE"],
        "security_opts": ["seccomp=unconfined", "apparmor=unconfined"],
        "cgroupns_mode": "host" if cgroup_version == "1" else "private",
        "tmpfs": ["/run", "/run/lock", "/tmp"],
        "volumes": volumes,
        "stop_signal": "SIGRTMIN+3",
    }


def cgroup_version(client: docker.DockerClient) -> str:
    return str(client.info().get("CgroupVersion", "1"))


def start(
    client: docker.DockerClient,
    name: str,
    release: str,
    *,
    labels: dict[str, str],
    ports: dict[int, int] | None = None,
    from_image: str = "",
) -> Container:
    """Start a host; `ports` maps ports of the host to ports on 127.0.0.1 of this machine (0: any)."""
    chosen = options(release, cgroup_version(client))
    return client.containers.run(
        from_image or chosen["image"],
        chosen["command"],
        detach=True,
        name=name,
        hostname=name,
        labels=labels,
        environment=chosen["env"],
        cap_add=chosen["capabilities"],
        security_opt=chosen["security_opts"],
        cgroupns=chosen["cgroupns_mode"],
        tmpfs=dict.fromkeys(chosen["tmpfs"], ""),
        volumes=chosen["volumes"],
        stop_signal=chosen["stop_signal"],
        # Port 0 lets the kernel choose
        ports={f"{inside}/tcp": ("127.0.0.1", outside) for inside, outside in (ports or {}).items()},
    )


def text(output: bytes | Iterable[bytes]) -> str:
    """What a command has printed, from either form in which the Docker SDK returns it."""
    return (output if isinstance(output, bytes) else b"".join(output)).decode(errors="replace").strip()


def run_in(container: Container, script: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a shell script in the host; returns its exit code and its output."""
    code, output = container.exec_run(["/bin/sh", "-c", script], environment=environment)
    return int(code or 0), text(output)


def wait_until_up(container: Container, seconds: float = BOOT_SECONDS) -> None:
    """Wait until systemd says that the host is running; a failed unit or a dead container is a problem."""
    until = time.monotonic() + seconds
    state = ""
    while time.monotonic() < until:
        container.reload()
        if container.status != "running":
            log = container.logs(tail=15).decode(errors="replace")
            raise Problem(
                f"the host {container.name} ended while it started:\n{log}",
                f"docker logs {container.name}",
            )
        # Right after the start there is no bus to ask yet: systemctl fails at once, and is asked again
        _, state = run_in(container, "timeout 30 systemctl is-system-running --wait 2>/dev/null")
        if state == "running":
            return
        if state == "degraded":
            _, units = run_in(container, "systemctl --failed --plain --no-legend")
            raise Problem(
                f"units failed while the host {container.name} started:\n{units}",
                f"docker exec {container.name} journalctl -p err",
            )
        time.sleep(0.2)
    raise Problem(
        f"the host {container.name} is not up after {seconds:.0f} s (systemd says: {state or 'nothing'})",
        f"docker exec {container.name} systemctl list-jobs\n"
        "Is the image a systemd image? It is chosen by GROUNDCREW_IMAGE, or built by: python -m tools.image",
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser(
        "options",
        help="print how a host runs, as JSON for community.docker.docker_container",
    )
    show.add_argument(
        "releases",
        nargs="*",
        metavar="RELEASE",
        help="default: all, as one object by release",
    )
    chosen = parser.parse_args()
    version = cgroup_version(engine.connect())
    json.dump(
        {release: options(release, version) for release in chosen.releases or image.RELEASES},
        sys.stdout,
        indent=2,
    )
    print()
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
