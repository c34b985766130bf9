"""Changes on purpose, with a client that asks at a fixed rate: none of its requests may fail. Figures: docs/failover.md.

The protection of each is to leave before a host goes; test_failover.py has what becomes of requests where a host goes without.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker.errors import DockerException

from tools import engine, host, prepared
from tools.console import ROOT
from tools.drills import EDGES, HOSTS, SCENARIO, Cluster, Outcome, generated, measured

pytestmark = pytest.mark.soak
NEW = "app3"


def run(playbook: str, *options: str, inventory: str = "", **variables: Any) -> None:
    """Run a playbook, which has to come through."""
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    where = f"--inventory={inventory or os.environ['MOLECULE_INVENTORY_FILE']}"
    command = [program, where, f"--extra-vars={json.dumps(variables)}", *options, playbook]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=2400)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]


def unnoticed(outcome: Outcome) -> bool:
    return (outcome.failed, outcome.lost, outcome.unfinished) == (0, 0, 0)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Return the scenario's hosts; says in the end what was measured."""
    yield from measured()


def live(cluster: Cluster) -> dict[str, str]:
    """The release that serves on each application host."""
    return {
        name: cluster.console(name, "readlink", "-f", "/srv/textreport/web/live/release").rsplit("/", 1)[1].strip()
        for name in ("app1", "app2")
    }


def asked(cluster: Cluster, edge: str) -> set[str]:
    """The application hosts that an edge knows."""
    said = cluster.console(edge, "sh", "-c", "echo 'show servers state textreport' | socat - UNIX-CONNECT:/run/haproxy/admin.sock")
    return {line.split()[3] for line in said.splitlines() if re.match(r"\d+ ", line)}


@contextmanager
def power(cluster: Cluster) -> Iterator[list[str]]:
    """Start again what goes down, as firmware does; yields who went down, in order."""
    end, seen = threading.Event(), list[str]()

    def watch() -> None:
        while not end.wait(0.3):
            for name in HOSTS:
                # The engine may be busy; the next look finds the same
                with suppress(DockerException):
                    if cluster.container(name).status == "exited":
                        cluster.start(name)
                        seen.append(name)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        end.set()
        thread.join()


def test_a_release_takes_no_request_down(cluster: Cluster, tmp_path: Path) -> None:
    """Catches a release that a visitor of any of the hosts notices."""
    source = shutil.copytree(ROOT / "app", tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", ".*"))
    with (source / "src/textreport/__init__.py").open("a", encoding="utf-8") as module:
        module.write("\n# The next release\n")
    before = live(cluster)
    with cluster.drill("rolling release (deploy.yml)") as found:
        run("playbooks/deploy.yml", app_source=str(source), deploys_sample=True)
    after = live(cluster)
    assert after["app1"] == after["app2"] != before["app1"], (before, after)
    assert unnoticed(found[0]), found


def test_restarts_of_all_hosts_take_no_request_down(cluster: Cluster) -> None:
    """Catches a host that goes before others do what it does, two at a time, and one that is asked again too soon."""
    with power(cluster) as down, cluster.drill("rolling restart of all hosts (upgrade.yml)") as found:
        run("playbooks/upgrade.yml", reboot="always")
    assert sorted(down) == sorted(HOSTS), down
    assert unnoticed(found[0]), found


@pytest.fixture
def another(cluster: Cluster) -> Iterator[str]:
    """Return an inventory that has one application host more, which is fresh."""
    base = Path(os.environ["MOLECULE_INVENTORY_FILE"])
    client = engine.connect()
    labels = {"groundcrew.scenario": SCENARIO, "groundcrew.run": os.environ.get("GROUNDCREW_RUN", "by-hand")}
    name = f"groundcrew-{SCENARIO}-{NEW}"
    started = host.start(client, name, "trixie", labels=labels, from_image=prepared.prepared_image("trixie"))
    try:
        address = cluster.address.rsplit(".", 1)[0] + ".210"
        client.networks.get(f"groundcrew-{SCENARIO}").connect(started, ipv4_address=address)
        host.wait_until_up(started)
        key = (generated() / "id_ed25519.pub").read_text(encoding="utf-8").strip()
        code, said = host.run_in(
            started,
            "set -e; id admin >/dev/null 2>&1 || useradd --create-home --shell /bin/bash admin\n"
            "echo 'admin ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/admin\n"
            "install -d -m 0700 -o admin -g admin /home/admin/.ssh\n"
            f"echo '{key}' > /home/admin/.ssh/authorized_keys; chown admin:admin /home/admin/.ssh/authorized_keys",
        )
        assert code == 0, said
        known = yaml.safe_load(base.read_text(encoding="utf-8"))
        found = known["all"]["hosts"]
        found[NEW] = {**found["app1"], "ansible_host": address}
        for group in ("app", "worker"):
            known[group]["hosts"][NEW] = found[NEW]
        grown = base.with_name("grown.yml")
        grown.write_text(yaml.safe_dump(known), encoding="utf-8")
        yield str(grown)
        grown.unlink()
    finally:
        started.remove(force=True)


def test_an_application_host_comes_and_goes_unnoticed(cluster: Cluster, another: str) -> None:
    """Catches a new host that is asked before it answers, others that it takes down, and one that is asked while it goes."""
    with cluster.drill("application host added (site.yml --limit)") as found:
        run("site.yml", f"--limit={NEW},db,cache,web", "--skip-tags=hardening,upgrades,fail2ban", inventory=another)
    assert unnoticed(found[0]), found
    served = cluster.console(NEW, "journalctl", "--no-pager", "--output=cat", "--unit=textreport-web@*")
    assert "/api/reports" in served
    assert [asked(cluster, edge) for edge in EDGES] == [{"app1", "app2", NEW}] * 2
    with cluster.drill("application host removed (site.yml --limit=web, site.yml)") as found:
        run("site.yml", "--limit=web", "--skip-tags=hardening,upgrades,fail2ban")
        assert [asked(cluster, edge) for edge in EDGES] == [{"app1", "app2"}] * 2
        cluster.console(NEW, "systemctl", "stop", "textreport-worker-*")
        run("site.yml", "--skip-tags=hardening,upgrades,fail2ban")
        cluster.kill(NEW)
    assert unnoticed(found[0]), found
