"""Inventories that ask a provider, or a script, say what a static one says; the examples are those of docs/scaling.md."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from tests.rendering import PREFIXED_FACTS
from tests.test_wiring import Baseline, baseline

ROOT = Path(__file__).parent.parent
REGION = "eu-central-1"
# Of one host twice, so that a tier may share its hosts
TIERS = {"web1": "web", "app1": "app worker", "app2": "app", "db1": "db cache"}
SHOWN = {
    "all": [
        *("ansible_host", "host_address", "several_hosts", "service_clients", "proxy_clients"),
        *("firewall_openings", "fail2ban_ignore", "database_url", "peer_certificates"),
    ],
    "web": ["haproxy_proxies", "smoke_units"],
    "worker": ["celery_beat"],
    "db": ["postgresql_hba"],
}
SECRETS = {
    f"vault_{name}": "W4vGq8sZ0pLr2xNd"
    for name in ("postgresql_app_password", "redis_broker_password", "redis_cache_password", "app_secret_key")
}


def example(language: str) -> str:
    """The one file in this language that docs/scaling.md shows."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "docs/scaling.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(found)


class Cloud:
    """An account at AWS, as moto's server plays it."""

    def __init__(self, url: str) -> None:
        self.ec2 = boto3.client("ec2", region_name=REGION, endpoint_url=url)
        self.last = 19

    def start(self, tiers: str | None, environment: str = "production") -> str:
        """Start an instance with these tags; returns its id, by which the inventory names it."""
        self.last += 1
        tags = {"environment": environment, "Name": "server"} | ({} if tiers is None else {"tiers": tiers})
        done = self.ec2.run_instances(
            ImageId="ami-12c6146b",
            MinCount=1,
            MaxCount=1,
            PrivateIpAddress=f"10.20.0.{self.last}",
            TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}],
        )
        return str(done["Instances"][0]["InstanceId"])

    def end(self, instance: str) -> None:
        self.ec2.terminate_instances(InstanceIds=[instance])

    def addresses(self) -> dict[str, str]:
        """The addresses of the instances that run, by their names, in their order."""
        pages = self.ec2.describe_instances(Filters=[{"Name": "instance-state-name", "Values": ["running"]}])
        found = [one for reservation in pages["Reservations"] for one in reservation["Instances"]]
        return {one["InstanceId"]: one["PrivateIpAddress"] for one in sorted(found, key=lambda one: str(one["InstanceId"]))}


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """An account without instances, by which Ansible's plugin is asked too."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "{}:{}".format(*server.get_host_and_port())
    url = f"http://{address}"
    for name, value in {"AWS_URL": url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "no_proxy": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    try:
        yield Cloud(url)
    finally:
        # In this process, its servers have one account
        urllib.request.urlopen(f"http://{address}/moto-api/reset", data=b"").close()
        server.stop()


def environment(folder: Path, name: str, text: str) -> Path:
    """An environment's folder whose hosts are what this file says."""
    path = folder / "inventories/production" / name
    (path.parent / "group_vars/all").mkdir(parents=True)
    (path.parent / "group_vars/all/main.yml").write_text(yaml.safe_dump({"site_hosts": ["www.example.com"]}))
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755 if text.startswith("#!") else 0o644)
    return path.parent


def static(addresses: dict[str, str], tiers: dict[str, str]) -> str:
    """The same hosts, as an operator would write them down."""
    groups: dict[str, Any] = {}
    for host in addresses:
        for tier in tiers[host].split():
            groups.setdefault(tier, {"hosts": {}})["hosts"][host] = None
    hosts = {host: {"ansible_host": address, "host_address": address} for host, address in addresses.items()}
    return yaml.safe_dump({"all": {"hosts": hosts, "children": groups}}, sort_keys=False)


def seen(folder: Path, hosts: Path) -> Baseline:
    folder.mkdir()
    return baseline(folder, hosts=hosts, shown=SHOWN)


def play(folder: Path, hosts: Path, playbook: str, *options: str, gathered: bool = True, **variables: Any) -> tuple[int, str]:
    """Run a playbook of the repository as far as it goes without hosts; returns how it ended and what it said, on one line."""
    facts = {"name": "Pretend to have gathered facts", "ansible.builtin.set_fact": {**PREFIXED_FACTS, "cacheable": True}}
    before = [{"name": "Give facts", "hosts": "all", "gather_facts": False, "tasks": [facts]}]
    (folder / "facts.yml").write_text(json.dumps(before if gathered else []))
    program = str(Path(sys.executable).parent / "ansible-playbook")
    done = subprocess.run(
        [program, "-i", str(hosts), "-e", json.dumps(SECRETS | variables), *options, str(folder / "facts.yml"), str(ROOT / playbook)],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_GATHERING": "explicit", "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_instances_are_hosts_like_any_other(tmp_path: Path, cloud: Cloud) -> None:
    """Catches a group, an address, an opening or a login that only a file of hosts gets right, and an instance of another environment."""
    names = {cloud.start(tiers): host for host, tiers in TIERS.items()}
    cloud.start("app", environment="staging")
    addresses = {instance: address for instance, address in cloud.addresses().items() if instance in names}
    hosts = environment(tmp_path / "aws", "hosts.aws_ec2.yml", example("yaml"))
    got = seen(tmp_path / "of-aws", hosts)
    tiers = {instance: TIERS[host] for instance, host in names.items()}
    assert got == seen(tmp_path / "of-file", environment(tmp_path / "file", "hosts.yml", static(addresses, tiers)))

    by_name = {host: instance for instance, host in names.items()}
    clients = sorted(addresses[by_name[host]] for host in ("app1", "app2"))
    db = got[by_name["db1"]]
    assert db["service_clients"] == clients
    assert {tuple(one["sources"]) for one in db["firewall_openings"] if one["name"] in ("postgresql", "redis")} == {tuple(clients)}
    assert f"@{addresses[by_name['db1']]}:5432/" in got[by_name["app1"]]["database_url"]
    assert got[by_name["app1"]]["celery_beat"] is True
    assert got[by_name["app1"]]["several_hosts"] is True

    # The same preflight as of any environment, to its end
    code, said = play(tmp_path, hosts, "playbooks/preflight.yml")
    assert code == 0, said[-4000:]


def test_an_instance_that_comes_or_goes_changes_what_concerns_it(tmp_path: Path, cloud: Cloud) -> None:
    """Catches a new instance that the others do not let in, one that is gone and still trusted, and a change that spreads to all."""
    names = {cloud.start(tiers): host for host, tiers in TIERS.items()}
    by_name = {host: instance for instance, host in names.items()}
    hosts = environment(tmp_path / "aws", "hosts.aws_ec2.yml", example("yaml"))
    before = seen(tmp_path / "before", hosts)
    new = cloud.start("app")
    address = cloud.addresses()[new]
    grown = seen(tmp_path / "grown", hosts)
    changed = {names[host]: sorted(name for name in before[host] if before[host][name] != grown[host][name]) for host in before}
    # Who bans addresses spares those of the fleet
    assert changed == {
        "web1": ["fail2ban_ignore", "haproxy_proxies", "service_clients", "smoke_units"],
        "app1": ["fail2ban_ignore", "service_clients"],
        "app2": ["fail2ban_ignore", "service_clients"],
        "db1": ["fail2ban_ignore", "firewall_openings", "postgresql_hba", "service_clients"],
    }
    assert grown[new]["firewall_openings"] == grown[by_name["app2"]]["firewall_openings"]
    assert address in grown[by_name["db1"]]["service_clients"]
    cloud.end(new)
    assert seen(tmp_path / "shrunk", hosts) == before


@pytest.mark.parametrize(
    ("started", "message"),
    [
        (["web", "app", "wrk"], r"i-[0-9a-f]+ \(10\.20\.0\.22\) is in no group"),
        (["web", "app", None], r"i-[0-9a-f]+ \(10\.20\.0\.22\) is in no group"),
        (["web", "worker"], r"The groups web and app need a host each"),
        (["web", "app", "cache", "cache"], r"The group cache has 2 hosts"),
        ([], r"inventories/production names no host: where it asks a provider, do region, tags and credentials fit\?"),
    ],
)
def test_tags_that_could_not_work_are_refused(tmp_path: Path, cloud: Cloud, started: list[str | None], message: str) -> None:
    """Catches an instance that a run passes over in silence, and a run over nobody that ends well."""
    for tiers in started:
        cloud.start(tiers)
    hosts = environment(tmp_path, "hosts.aws_ec2.yml", example("yaml"))
    code, said = play(tmp_path, hosts, "playbooks/preflight_topology.yml")
    assert code != 0, said
    assert re.search(message, said), said[-3000:]


def test_a_provider_that_does_not_answer_ends_the_run(tmp_path: Path, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a run over no hosts, or over some of them, where the provider could not be asked."""
    monkeypatch.setenv("AWS_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    code, said = play(tmp_path, environment(tmp_path, "hosts.aws_ec2.yml", example("yaml")), "playbooks/preflight_topology.yml")
    assert code != 0
    assert "Failed to describe instances" in said


def test_a_script_names_hosts_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a script's hosts that come out otherwise than a file's, one in no tier that is passed over, and a script whose failure is."""
    addresses = {host: f"10.20.0.{number}" for number, host in enumerate(sorted(TIERS), 20)}
    machines: list[dict[str, Any]] = [
        {"name": host, "address": address, "environment": "production", "tiers": TIERS[host].split()} for host, address in addresses.items()
    ]
    listed = tmp_path / "machines.json"
    listed.write_text(json.dumps([*machines, {"name": "other", "address": "10.20.0.9", "environment": "staging", "tiers": ["app"]}]))
    monkeypatch.setenv("MACHINES", str(listed))
    hosts = environment(tmp_path / "script", "hosts.py", example("python"))
    got = seen(tmp_path / "of-script", hosts)
    assert got == seen(tmp_path / "of-file", environment(tmp_path / "file", "hosts.yml", static(addresses, TIERS)))

    listed.write_text(json.dumps([*machines, {"name": "spare", "address": "10.20.0.9", "environment": "production", "tiers": []}]))
    code, said = play(tmp_path, hosts, "playbooks/preflight_topology.yml")
    assert (code != 0, "spare (10.20.0.9) is in no group" in said) == (True, True), said[-3000:]

    listed.unlink()
    code, said = play(tmp_path, hosts, "playbooks/preflight_topology.yml", gathered=False)
    assert (code != 0, "machines.json" in said) == (True, True), said[-3000:]


def test_a_limited_run_gets_what_a_whole_one_gets(tmp_path: Path) -> None:
    """Catches a value that is made of another host's facts: a run of one host would write something else, or fail."""
    inventory = environment(
        tmp_path, "hosts.yml", static({host: f"10.20.0.{number}" for number, host in enumerate(sorted(TIERS), 20)}, TIERS)
    )
    files = [ROOT / "group_vars/all", ROOT / "group_vars"]
    names = sorted(
        {name for folder in files for path in folder.glob("*.yml") for name in yaml.safe_load(path.read_text(encoding="utf-8")) or {}}
    )
    # A host's own facts are gathered in each run; of the others there are none
    text = "{{ {" + ", ".join(f"'{name}': {name} | default('-')" for name in names) + "} | to_json }}"
    roles = [path.parent.parent.name for path in sorted(ROOT.glob("roles/*/tasks/validate.yml"))]
    tasks = [
        # Nothing of it runs, but the roles' defaults are there
        *({"name": f"Know {role}", "ansible.builtin.import_role": {"name": role, "tasks_from": "validate"}, "when": False} for role in roles),
        {"name": "Have this host's facts", "ansible.builtin.set_fact": {**PREFIXED_FACTS, "cacheable": True}},
        {"name": "Show what it gets", "ansible.builtin.copy": {"content": text, "dest": f"{tmp_path}/{{{{ inventory_hostname }}}}.json"},
         "delegate_to": "localhost", "connection": "local"},
    ]  # fmt: skip
    (tmp_path / "play.yml").write_text(json.dumps([{"name": "Show", "hosts": "all", "gather_facts": False, "tasks": tasks}]))
    (tmp_path / "group_vars").symlink_to(ROOT / "group_vars")
    program = str(Path(sys.executable).parent / "ansible-playbook")

    def run(*options: str) -> dict[str, Any]:
        command = [program, "-i", str(inventory), "-e", json.dumps(SECRETS | {"ansible_python_interpreter": sys.executable})]
        done = subprocess.run(
            [*command, *options, str(tmp_path / "play.yml")], cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        found: dict[str, Any] = json.loads((tmp_path / "app2.json").read_text())
        (tmp_path / "app2.json").unlink()
        return found

    whole = run()
    assert len(whole) > 100
    assert whole["service_clients"] == ["10.20.0.20"]
    assert run("--limit", "app2") == whole


@pytest.mark.parametrize(
    ("limit", "refused"),
    [
        ("app2", "--limit app2,db1,web1 or without a limit"),
        ("app2:db:cache:web", ""),
        # The first worker runs beat, and is no new host here
        ("db1", ""),
        ("worker1:db", "worker2 would not learn"),
        ("worker2:db", ""),
        ("all", ""),
    ],
)
def test_a_limit_leaves_out_nobody_whom_a_new_host_needs(tmp_path: Path, limit: str, refused: str) -> None:
    """Catches a new host that waits for a database which does not let it in, and two beats."""
    tiers = {"web1": "web", "app1": "app", "app2": "app", "worker1": "worker", "worker2": "worker", "db1": "db cache"}
    hosts = yaml.safe_load(static({host: f"10.20.0.{number}" for number, host in enumerate(tiers, 20)}, tiers))
    for host in hosts["all"]["hosts"]:
        hosts["all"]["hosts"][host]["app_root"] = str(tmp_path / host)
        if host not in ("app2", "worker1", "worker2"):
            (tmp_path / host / "textreport/current").mkdir(parents=True)
    inventory = environment(tmp_path, "hosts.yml", yaml.safe_dump(hosts))
    local: dict[str, Any] = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
    code, said = play(tmp_path, inventory, "playbooks/preflight_limit.yml", "--limit", limit, **local)
    assert (code != 0) == bool(refused), said[-3000:]
    assert refused in said
