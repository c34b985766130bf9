"""Measure site.yml in one run: a fresh host against a plain shell script (the floor), and a run with nothing to change against that.

Medians over the rounds, and their ratios. What a round needs (image, packages, the built application) is there before it starts.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import docker
from docker.errors import NotFound
from docker.models.containers import Container

from tools import access, engine, galaxy, host, image, runs, up
from tools.console import CACHE, LOCAL, LOGS, ROOT, Problem, duration, run_command, run_logged, say, tail

PAYLOAD = CACHE / "bench"
LOG = LOGS / "bench.log"
FLOOR = ROOT / "tools" / "bench_floor.sh"
APP = "textreport"
FRESH_GOAL = 1.8
UNCHANGED_GOAL = 0.25
# Configuration of ours, the certificates, and the links that start units at boot; not what belongs to the machine itself
FIND = """
find /etc /usr/local -newer /run/bench-start \\( -type f -o -type l \\) \
  -not -regex '/etc/\\(group\\|gshadow\\|passwd\\|shadow\\|subuid\\|subgid\\)-?' -not -path '/etc/rc?.d/*' -not -path '/etc/ssh/*' \
  -not -path '/etc/ssl/certs/*' -not -path '/etc/ssl/private/*' -not -path '/etc/sudoers.d/*' -not -path '/etc/alternatives/*' \
  -not -name ld.so.cache -not -name machine-id -not -name mtab -not -name hosts -not -name hostname -not -name resolv.conf \
  -not -path '/etc/nginx/sites-enabled/default'
"""
PACKAGES = "dpkg-query --show --showformat '${Package}\\n'"


@dataclass
class Times:
    """Seconds of each kind of run, one a round."""

    floor: list[float] = field(default_factory=list)
    fresh: list[float] = field(default_factory=list)
    unchanged: list[float] = field(default_factory=list)


def table(times: Times) -> str:
    """The medians and ratios, as a table in Markdown."""
    floor, fresh, unchanged = (statistics.median(item) for item in (times.floor, times.fresh, times.unchanged))
    rows = [
        ("Shell script, fresh host (the floor)", times.floor, "1", ""),
        ("site.yml, fresh host", times.fresh, f"{fresh / floor:.2f} x the floor", f"{FRESH_GOAL}"),
        ("site.yml, nothing to change", times.unchanged, f"{unchanged / fresh:.2f} x the fresh host", f"{UNCHANGED_GOAL}"),
    ]
    lines = ["| run | median | least to most | ratio | goal, at most |", "|---|---|---|---|---|"]
    for name, seconds, ratio, goal in rows:
        spread = f"{min(seconds):.1f} to {max(seconds):.1f} s"
        lines.append(f"| {name} | {statistics.median(seconds):.1f} s | {spread} | {ratio} | {goal} |")
    return "\n".join(lines)


def machine() -> str:
    """The size of this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return f"{os.cpu_count()} cores ({model[1] if model else platform.machine()}), {memory:.0f} GiB of memory"


def fresh_host(client: docker.DockerClient) -> Container:
    """A bare host that lets this machine's key in."""
    remove_host(client)
    ports = up.ports()
    up.ensure_host(client, ports)
    container = client.containers.get(up.NAME)
    access.make_secrets()
    access.make_key()
    access.know(access.admit(container, "127.0.0.1", ports[22]))
    access.check_login(ports[22])
    return container


def remove_host(client: docker.DockerClient) -> None:
    with suppress(NotFound):
        runs.remove(client.containers.get(up.NAME))


def site(*, changes: bool, inventory: str = "inventories/local", log: Path = LOG, settings: dict[str, str] | None = None) -> float:
    """Run site.yml and see that it changed something, or nothing; returns its seconds. Settings are Ansible's, by their environment."""
    start = log.stat().st_size if log.exists() else 0
    begin = time.monotonic()
    run_logged([str(Path(sys.executable).parent / "ansible-playbook"), "-i", inventory, "site.yml"], log, settings=settings)
    seconds = time.monotonic() - begin
    changed = up.changed_tasks(log.read_bytes()[start:].decode(errors="replace"))
    if bool(changed) != changes:
        raise Problem(f"site.yml changed {changed} tasks: not the run to be measured", f"Read {log}")
    return seconds


def output(container: Container, script: str) -> str:
    code, text = host.run_in(container, script)
    if code:
        raise Problem(f"`{script}` ended with {code} in {container.name}:\n{text}")
    return text


def reference(client: docker.DockerClient) -> str:
    """Converge a host unmeasured and take from it what the floor installs; returns the release's id."""
    container = fresh_host(client)
    before = set(output(container, PACKAGES).split())
    output(container, "touch /run/bench-start")
    site(changes=True)
    shutil.rmtree(PAYLOAD, ignore_errors=True)
    access.private_directory(PAYLOAD)
    (PAYLOAD / "packages").write_text("\n".join(sorted(set(output(container, PACKAGES).split()) - before)), encoding="utf-8")
    output(container, f"{FIND.strip()} > /run/bench-files && tar -cf /run/bench.tar -T /run/bench-files")
    release = output(container, f"basename $(readlink /srv/{APP}/current)")
    units = output(container, "sed -n 's|^/etc/systemd/system/[^/]*\\.wants/||p' /run/bench-files | sort -u")
    own = [unit for unit in units.split() if unit.startswith((APP, "redis-server@", "nginx"))]
    (PAYLOAD / "units").write_text("\n".join(own), encoding="utf-8")
    _, files = container.exec_run(["cat", "/run/bench.tar"])
    (PAYLOAD / "files.tar").write_bytes(files if isinstance(files, bytes) else b"".join(files))
    version = output(container, "python3 -c 'import sys; print(\"cp%d%d\" % sys.version_info[:2])'")
    built = next((CACHE / "builds" / "artifacts").glob(f"{release}-{version}-*.tar.gz"))
    shutil.copy(built, PAYLOAD / "release.tar.gz")
    password = (LOCAL / "secrets" / "postgresql_app_password").read_text(encoding="utf-8").strip()
    sql = f"""\
CREATE ROLE {APP} LOGIN PASSWORD '{password}';
CREATE DATABASE {APP} OWNER {APP};
REVOKE ALL ON DATABASE {APP}, postgres, template1 FROM PUBLIC;
CREATE EXTENSION pg_stat_statements;
\\connect {APP}
ALTER SCHEMA public OWNER TO {APP};
"""
    access.write_private(PAYLOAD / "database.sql", sql)
    shutil.copy(FLOOR, PAYLOAD / "floor.sh")
    return release


def floor(release: str) -> float:
    """Upload the payload and run the shell script; returns its seconds."""
    ssh = [*access.ssh_command(up.ports()[22], Path.cwd()), "-o", "BatchMode=yes"]
    script = f"mkdir floor && tar -x -C floor && sudo sh floor/floor.sh {APP} {release}"
    begin = time.monotonic()
    with subprocess.Popen(["tar", "-c", "-C", str(PAYLOAD), "."], stdout=subprocess.PIPE) as payload, LOG.open("ab") as log:
        done = subprocess.run([*ssh, script], check=False, stdin=payload.stdout, stdout=log, stderr=log)
    seconds = time.monotonic() - begin
    if done.returncode:
        raise Problem(f"the shell script ended with {done.returncode}:\n{tail(LOG, 15)}", f"Read {LOG}")
    return seconds


def measure(client: docker.DockerClient, rounds: int) -> Times:
    times = Times()
    say("A reference host, not measured: it warms the caches, and the shell script installs what is found on it")
    release = reference(client)
    for number in range(1, rounds + 1):
        fresh_host(client)
        times.floor.append(floor(release))
        fresh_host(client)
        times.fresh.append(site(changes=True))
        times.unchanged.append(site(changes=False))
        shown = ", ".join(f"{item[-1]:.1f} s" for item in (times.floor, times.fresh, times.unchanged))
        say(f"Round {number} of {rounds}: shell script, fresh host, nothing to change: {shown}")
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", nargs="?", type=int, default=3, help="3 by default")
    rounds = parser.parse_args().rounds
    if rounds < 1:
        raise Problem(f"{rounds} rounds", "1 or more: make bench ROUNDS=3")
    begin = time.monotonic()
    galaxy.ensure()
    engine.ensure()
    client = engine.connect()
    if client.containers.list(all=True, filters={"name": f"^{up.NAME}$"}):
        raise Problem("the local host is up, and it would be measured with", "make down")
    image.ensure(client, up.release())
    LOG.unlink(missing_ok=True)
    LOG.parent.mkdir(parents=True, exist_ok=True)
    try:
        times = measure(client, rounds)
    finally:
        remove_host(client)
        # The payload holds secrets, and the local folder belongs to a host that is gone
        shutil.rmtree(PAYLOAD, ignore_errors=True)
        shutil.rmtree(LOCAL, ignore_errors=True)
    say(f"\n{table(times)}\n\n{rounds} rounds in {duration(time.monotonic() - begin)} on {machine()}; the host: Debian {up.release()}.")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
