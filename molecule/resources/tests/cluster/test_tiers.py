"""Tiers on separate hosts: who reaches whom, what crosses from one to the other, and releases in batches."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.console import ROOT, say
from tools.load import Load, Request, summary

EDGES, APPS, DATA = ("edge1", "edge2"), ("app1", "app2"), ("data1", "data2", "data3")
PUBLIC = {22: "SSH, which administrators reach from anywhere"}
WEB = [80, 443]
# PostgreSQL, the broker, the cache, and who is the first of them
SERVICES = [5432, 6379, 6380, 26379]
# How the members of a database agree: Patroni's health, etcd's clients and its peers
QUORUM = [2379, 2380, 8008]
PORTS = [*PUBLIC, *WEB, *SERVICES, *QUORUM, 8000]


def opened(source: str, target: str) -> list[int]:
    """The ports of one host that another one needs."""
    found = [*PUBLIC]
    if target in EDGES:
        found += WEB
    if target in APPS and source in EDGES:
        found += [8000]
    if target in DATA and source in APPS:
        found += SERVICES
    if target in DATA and source in DATA:
        found += SERVICES + QUORUM
    return sorted(found)


SCAN = """
import concurrent.futures, json, socket, sys
def open_port(place):
    try:
        socket.create_connection(place, timeout=2).close()
        return True
    except OSError:
        return False
places = [(address, port) for address in sys.argv[2:] for port in json.loads(sys.argv[1])]
with concurrent.futures.ThreadPoolExecutor(200) as pool:
    print(json.dumps([place for place, found in zip(places, pool.map(open_port, places)) if found]))
"""


@pytest.mark.parametrize("source", [*EDGES, *APPS, *DATA])
def test_a_host_reaches_what_its_tier_needs_and_nothing_else(fleet: dict[str, Any], addresses: dict[str, str], source: str) -> None:
    """Catches a port that is open to the wrong tier, and one that is closed to the right one."""
    others = [name for name in addresses if name != source]
    wanted = sorted([name, port] for name in others for port in opened(source, name))
    scan = f"python3 -c '{SCAN}' '{json.dumps(PORTS)}' {' '.join(addresses[name] for name in others)}"
    names = {address: name for name, address in addresses.items()}
    found = sorted([names[address], port] for address, port in json.loads(fleet[source].check_output(scan)))
    assert found == wanted


def test_report_crosses_all_tiers(fleet: dict[str, Any], web: Any, eventually: Any) -> None:
    """Catches an address, a password or a name that is only right where everything is on one host."""
    location = web.request("POST", "/api/reports", {"text": "From tier to tier."}).headers["Location"]
    assert eventually(lambda: web.finished(location))
    assert web.get(location).json()["result"]["words"] == 4


def test_application_hosts_share_the_requests(fleet: dict[str, Any], web: Any) -> None:
    """Catches an application host that never gets a request."""
    for _ in range(20):
        assert web.get("/version").status == 200
    for name in APPS:
        with fleet[name].sudo():
            assert "/version" in fleet[name].check_output("journalctl --no-pager -o cat -u textreport-web@*"), name


def test_one_beat_for_all_workers(fleet: dict[str, Any]) -> None:
    """Catches two schedulers, which would run every periodic task twice, and none."""
    states = {name: fleet[name].run("systemctl is-active textreport-beat.service").stdout.strip() for name in APPS}
    assert sorted(states.values()) == ["active", "inactive"], states


# The next release brings it back
def test_beat_ends_on_one_host_before_it_starts_on_another(fleet: dict[str, Any]) -> None:
    """Catches two schedulers for the time in which a run takes beat from one host and gives it to another."""
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    given = json.dumps({"celery_beat": "{{ inventory_hostname == 'app2' }}"})
    command = [program, f"--inventory={os.environ['MOLECULE_INVENTORY_FILE']}", f"--extra-vars={given}", "playbooks/worker.yml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-4000:]
    when = "journalctl --no-pager -o short-unix -u textreport-beat.service | grep ' %s ' | tail -n 1 | cut -d ' ' -f 1"
    with fleet["app1"].sudo(), fleet["app2"].sudo():
        assert not fleet["app1"].file("/etc/systemd/system/textreport-beat.service").exists
        assert fleet["app2"].service("textreport-beat").is_running
        ended, started = (fleet[name].check_output(when % what) for name, what in (("app1", "Stopped"), ("app2", "Started")))
    assert float(ended) < float(started)


def test_workers_run_what_their_release_of_debian_needs(fleet: dict[str, Any]) -> None:
    """Catches wheels of another Python on a host of the older release."""
    pythons = {name: fleet[name].check_output("/srv/textreport/current/venv/bin/python -V") for name in APPS}
    assert pythons["app1"].startswith("Python 3.13.")
    assert pythons["app2"].startswith("Python 3.11.")
    releases = {fleet[name].check_output("basename $(readlink /srv/textreport/current)") for name in APPS}
    assert len(releases) == 1


TLS = """
import socket, ssl, sys
address, port, said = sys.argv[1], int(sys.argv[2]), sys.argv[3]
plain = socket.create_connection((address, port), timeout=5)
context = ssl.create_default_context(cafile="/etc/ssl/groundcrew/ca.pem")
if said:
    tls = context.wrap_socket(plain, server_hostname=address)
    tls.sendall(said.encode() + b"\\r\\n")
    print(tls.recv(200).decode())
else:
    plain.sendall(b"PING\\r\\n")
    try:
        print(plain.recv(200))
    except OSError as error:
        print(type(error).__name__)
"""


def test_passwords_are_asked_for_across_the_network(fleet: dict[str, Any], addresses: dict[str, str]) -> None:
    """Catches a tier network that is trusted: a service that lets in whoever reaches it, or talks to him in plain text."""
    host = fleet["app1"]
    for port in (6379, 6380):
        ask = f"python3 -c '{TLS}' {addresses['data1']} {port}"
        assert host.check_output(f"{ask} PING").startswith("-NOAUTH")
        assert host.check_output(f"{ask} 'AUTH textreport wrong-password'").startswith("-WRONGPASS")
        assert "PONG" not in host.check_output(f"{ask} ''")
        assert "NOAUTH" not in host.check_output(f"{ask} ''")
    login = (
        "import psycopg, sys\n"
        "try:\n"
        '    psycopg.connect(host=sys.argv[1], user="textreport", password=sys.argv[2] or None, dbname="textreport", connect_timeout=5,'
        ' sslmode=sys.argv[3], sslrootcert="/etc/ssl/groundcrew/ca.pem")\n'
        "except psycopg.OperationalError as error:\n"
        "    print(error)"
    )
    python = f"/srv/textreport/current/venv/bin/python -c '{login}' {addresses['data1']}"
    assert "password authentication failed" in host.check_output(f"{python} wrong-password verify-full")
    assert "no password supplied" in host.check_output(f"{python} '' verify-full")
    assert re.search("no pg_hba.conf entry for host .* no encryption", host.check_output(f"{python} wrong-password disable"))


def live(fleet: dict[str, Any]) -> dict[str, str]:
    """Return the release that serves on each application host."""
    return {name: fleet[name].check_output("basename $(readlink -f /srv/textreport/web/live/release)") for name in APPS}


def changed(folder: Path, comment: str) -> Path:
    """Return the sample's source as another release."""
    source = shutil.copytree(ROOT / "app", folder / "app", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", ".*"))
    with (source / "src/textreport/__init__.py").open("a", encoding="utf-8") as module:
        module.write(f"\n# {comment}\n")
    return source


def deploy(source: Path) -> subprocess.CompletedProcess[str]:
    """Return a run of a release of this source."""
    given = {"app_source": str(source), "deploys_sample": True}
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        f"--inventory={os.environ['MOLECULE_INVENTORY_FILE']}",
        f"--extra-vars={json.dumps(given)}",
        "playbooks/deploy.yml",
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)


def standing(fleet: dict[str, Any]) -> dict[str, set[str]]:
    """Return, for each host that has releases, those that are current there or live in one of its services."""
    links = "/srv/textreport/current $(ls -d /srv/textreport/*/live/release)"
    return {name: set(fleet[name].check_output(f"for link in {links}; do basename $(readlink -f $link); done").split()) for name in APPS}


@pytest.fixture(scope="module")
def mended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the source of a release that fails on some hosts first."""
    return changed(tmp_path_factory.mktemp("mended"), "A release that fails on some hosts first")


@pytest.mark.parametrize(("where", "service", "unit"), [("app2", "worker", "worker-default"), ("app1", "web", "web")])
def test_a_release_that_fails_on_the_first_hosts_is_nowhere(
    fleet: dict[str, Any], mended: Path, where: str, service: str, unit: str
) -> None:
    """Catches a release that its failure elsewhere leaves current, unmarked or running, so that a later run takes it up."""
    before = standing(fleet)
    idle = {"blue": "green", "green": "blue"}[fleet[where].check_output(f"readlink /srv/textreport/{service}/live")]
    broken = f"/etc/systemd/system/textreport-{unit}@{idle}.service.d"
    with fleet[where].sudo():
        fleet[where].check_output(f"mkdir -p {broken} && printf '[Service]\\nExecStartPre=/bin/false\\n' > {broken}/99-broken.conf")
    try:
        done = deploy(mended)
    finally:
        with fleet[where].sudo():
            fleet[where].check_output(f"rm -r {broken} && systemctl daemon-reload")
    assert done.returncode != 0
    found = re.search(r"Release\s+(\w+)\s+is\s+marked\s+bad", done.stdout)
    assert found, done.stdout[-4000:]
    assert standing(fleet) == before
    said = {name: fleet[name].check_output(f"tail -n 1 /srv/textreport/releases/{found[1]}/bad") for name in before}
    assert [name for name, reason in said.items() if name != where and not re.search(rf"failed(: | on ){where}$", reason)] == [], said


def test_a_release_that_failed_goes_through_once_it_is_mended(fleet: dict[str, Any], mended: Path) -> None:
    """Catches a mark, a lock or a slot that a failure leaves in the way."""
    before = standing(fleet)
    done = deploy(mended)
    assert done.returncode == 0, done.stdout[-4000:]
    after = standing(fleet)
    (release,) = set.union(*after.values())
    assert release not in set.union(*before.values())
    assert [name for name in after if fleet[name].file(f"/srv/textreport/releases/{release}/bad").exists] == []


# The last one: it leaves a fleet of two releases
def test_a_host_that_fails_ends_the_release_and_loses_no_request(fleet: dict[str, Any], web: Any, tmp_path: Path) -> None:
    """Catches a release that goes back where it serves well, that serves where it failed, and one that a visitor notices."""
    source = changed(tmp_path, "Another release")
    before, broken = live(fleet), "/etc/systemd/system/textreport-web@.service.d"
    with fleet["app2"].sudo():
        fleet["app2"].check_output(f"mkdir -p {broken} && printf '[Service]\\nExecStartPre=/bin/false\\n' > {broken}/99-broken.conf")
    load = Load(
        "https://localhost",
        [Request("GET", "/version"), Request("POST", "/api/reports", '{"text": "{number}"}')],
        10,
        web.ca_file,
        web.address,
    )
    load.start()
    try:
        done = deploy(source)
    finally:
        answers = load.stop()
        with fleet["app2"].sudo():
            fleet["app2"].check_output(f"rm -r {broken} && systemctl daemon-reload")
    after = live(fleet)
    say(json.dumps(summary(answers)))
    assert done.returncode != 0
    assert f"Release {after['app1']} is marked bad" in done.stdout, done.stdout[-4000:]
    assert (after["app1"] != before["app1"], after["app2"]) == (True, before["app2"])
    assert [(answer.request.path, answer.status, answer.error) for answer in answers if not answer.good] == []
    assert {json.loads(web.get("/version").body)["release"] for _ in range(20)} == {*after.values()}
