"""group_vars/all wires the roles to each other: what is set once reaches every service, address and opening that it concerns."""

from __future__ import annotations

import itertools
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
TIERS = ROOT / "tests/fixtures/tiers"
ADDRESSES = {"web1": "fd00::20", "app1": "fd00::21", "app2": "fd00::22", "worker1": "fd00::23", "db1": "fd00::24", "cache1": "fd00::25"}
SHOWN = {
    "all": ["database_url", "broker_url", "cache_url", "firewall_openings", "app_static_folder", "app_migrate_command", "celery_workers"],
    "web": ["haproxy_proxies", "nginx_http_port", "nginx_https_port", "nginx_public_https_port", "nginx_sites", "smoke_url", "tls_directory",
            "smoke_ready_path", "smoke_task_path", "smoke_units", "site_static_immutable"],
    "app": ["haproxy_proxies", "gunicorn_companions"],
    "worker": ["celery_beat", "celery_companions"],
    "db": ["postgresql_port", "postgresql_listen_addresses", "postgresql_roles", "postgresql_hba"],
    "cache": ["redis_addresses", "redis_instances", "redis_users"],
}  # fmt: skip

Baseline = dict[str, dict[str, Any]]


def baseline(
    folder: Path, inventory: dict[str, Any] | None = None, hosts: Path = TIERS, shown: dict[str, list[str]] = SHOWN, **variables: Any
) -> Baseline:
    """What the fleet's baseline makes of hosts, in tiers by default, some of it overridden: a dict of variables for each host."""
    (folder / "group_vars").symlink_to(ROOT / "group_vars")
    (folder / "over.yml").write_text(yaml.safe_dump(inventory or {"all": {}}))
    texts = {group: "{{ {" + ", ".join(f"'{name}': {name}" for name in names) + "} | to_json }}" for group, names in shown.items()}
    plays = [
        {
            "name": "Show what the roles get",
            "hosts": group,
            "gather_facts": False,
            "tasks": [{"name": "Show it", "ansible.builtin.debug": {"msg": text}}],
        }
        for group, text in texts.items()
    ]
    (folder / "play.yml").write_text(yaml.safe_dump(plays))
    secrets = {f"vault_{name}": "W4vGq8sZ0pLr2xNd" for name in ("postgresql_app_password", "redis_broker_password", "redis_cache_password")}
    done = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(hosts), "-i", str(folder / "over.yml")),
            *("-e", json.dumps(secrets | variables), str(folder / "play.yml")),
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    found: Baseline = {}
    for line in re.finditer(r"^ok: \[([\w.-]+)\] => ", done.stdout, re.MULTILINE):
        result, _ = json.JSONDecoder().raw_decode(done.stdout, line.end())
        found[line[1]] = found.get(line[1], {}) | json.loads(result["msg"])
    return found


def ports(openings: list[dict[str, Any]]) -> set[int]:
    return {int(port) for opening in openings for port in opening.get("ports", [])}


def test_a_port_is_set_once(tmp_path: Path) -> None:
    """Catches a port that changes in a service, and not in the firewall, the URL or the service that asks it."""
    other: dict[str, Any] = {"postgresql_port": 15432, "broker_port": 16379, "cache_port": 16380, "upstream_port": 18000}
    got = baseline(tmp_path, **other, nginx_http_port=10080, nginx_https_port=10443, tls_directory="/etc/ssl/other")
    assert ports(got["db1"]["firewall_openings"]) == {22, 15432}
    assert got["db1"]["postgresql_port"] == 15432
    assert "@10.20.0.24:15432/" in got["app1"]["database_url"]
    assert ports(got["cache1"]["firewall_openings"]) == {22, 16379, 16380}
    assert {one["name"]: one["port"] for one in got["cache1"]["redis_instances"]} == {"broker": 16379, "cache": 16380}
    assert "@10.20.0.25:16379/" in got["worker1"]["broker_url"]
    assert "@10.20.0.25:16380/" in got["worker1"]["cache_url"]
    assert ports(got["app2"]["firewall_openings"]) == {22, 18000}
    assert got["app2"]["haproxy_proxies"][0]["listen"] == "10.20.0.22:18000"
    assert ports(got["web1"]["firewall_openings"]) == {22, 10080, 10443}
    (site,) = got["web1"]["nginx_sites"]
    assert site["upstreams"] == ["unix:/run/haproxy/www/textreport.sock"]
    (proxy,) = got["web1"]["haproxy_proxies"]
    assert [server["address"] for server in proxy["servers"]] == ["10.20.0.21:18000", "10.20.0.22:18000"]
    assert site["certificate_file"].startswith("/etc/ssl/other/default/")
    assert got["web1"]["smoke_url"] == "https://www.example.com:10443"
    assert not re.search(r"\b(5432|6379|6380|8000|80|443)\b|/etc/ssl/groundcrew", json.dumps(got))


def test_sshd_and_the_firewall_move_together(tmp_path: Path) -> None:
    """Catches a port of SSH that the firewall keeps closed, a former one that closes before the run is over, or stays open for good."""
    shown = {"all": ["firewall_openings", "ssh_port", "ssh_allow_groups"]}
    connection = {"env": {"SSH_CONNECTION": "192.0.2.1 50000 192.0.2.2 22"}}
    got = baseline(tmp_path, shown=shown, ssh_port=2022, administrators_group="people", ansible_facts=connection)["db1"]
    assert (got["ssh_port"], got["ssh_allow_groups"]) == (2022, ["people"])
    (ssh,) = [opening for opening in got["firewall_openings"] if opening["name"] == "ssh"]
    assert ssh["ports"] == [2022, 22]


def test_no_host_bans_another(tmp_path: Path) -> None:
    """Catches a web server that bans a host of its own, one that watches no web server's log, and a ban of other ports than its own."""
    shown = {"all": ["fail2ban_ignore", "fail2ban_ssh_ports"], "web": ["fail2ban_jails", "fail2ban_web_ports"]}
    got = baseline(tmp_path, shown=shown, never_banned=["198.51.100.0/24"], nginx_https_port=10443)
    assert got["web1"]["fail2ban_ignore"] == [f"10.20.0.{number}" for number in range(21, 26)] + ["198.51.100.0/24"]
    assert got["db1"]["fail2ban_ssh_ports"] == [22]
    assert got["web1"]["fail2ban_web_ports"] == [80, 10443]
    assert "nginx-scanners" in got["web1"]["fail2ban_jails"]


def test_addresses_may_be_of_ipv6(tmp_path: Path) -> None:
    """Catches an address that runs into its port, and brackets where there is none."""
    got = baseline(tmp_path, {"all": {"hosts": {name: {"host_address": address} for name, address in ADDRESSES.items()}}})
    assert "@[fd00::24]:5432/" in got["app1"]["database_url"]
    assert "@[fd00::25]:6379/" in got["worker1"]["broker_url"]
    (proxy,) = got["app1"]["haproxy_proxies"]
    assert (proxy["listen"], proxy["clients"]) == ("[fd00::21]:8000", ["fd00::20"])
    assert got["app1"]["gunicorn_companions"] == [{"host": host, "slots": "/srv/textreport/worker"} for host in ("worker1",)]
    assert got["worker1"]["celery_companions"] == [{"host": host, "slots": "/srv/textreport/web"} for host in ("app1", "app2")]
    assert [server["address"] for server in got["web1"]["haproxy_proxies"][0]["servers"]] == ["[fd00::21]:8000", "[fd00::22]:8000"]
    assert got["db1"]["postgresql_listen_addresses"] == ["127.0.0.1", "fd00::24"]
    assert got["cache1"]["redis_addresses"] == ["127.0.0.1", "fd00::25"]
    assert [opening["sources"] for opening in got["db1"]["firewall_openings"] if opening["name"] == "postgresql"] == [
        ["fd00::21", "fd00::22", "fd00::23"]
    ]


def test_an_application_on_the_web_servers_host_is_one_server_more(tmp_path: Path) -> None:
    """Catches a host of both tiers that reaches itself over the network, and a single host that goes through a proxy."""
    shown = {"all": ["haproxy_proxies", "nginx_sites", "firewall_openings", "haproxy_tls"]}
    (tmp_path / "both").mkdir()
    got = baseline(tmp_path / "both", {"all": {"children": {"web": {"hosts": {"app1": {}}}}}}, shown=shown)["app1"]
    of_web, of_app = got["haproxy_proxies"]
    live = "unix:/srv/textreport/web/live/run/web.sock"
    assert [server["address"] for server in of_web["servers"]] == [live, "10.20.0.22:8000"]
    assert (of_app["clients"], [server["address"] for server in of_app["servers"]]) == (["10.20.0.20"], [live])
    hosts = {"all": {"hosts": {"one": {}}, "vars": {"site_hosts": ["shop.example.com"]}} | {
        "children": {group: {"hosts": {"one": {}}} for group in ("web", "app", "worker", "db", "cache")}}}  # fmt: skip
    (tmp_path / "alone").mkdir()
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(hosts))
    alone = baseline(tmp_path / "alone", hosts=tmp_path / "hosts.yml", shown=shown)["one"]
    assert (alone["haproxy_proxies"], alone["haproxy_tls"]) == ([], {})
    assert alone["nginx_sites"][0]["upstreams"] == [live]


def test_an_address_of_several_web_servers_opens_vrrp_between_them(tmp_path: Path) -> None:
    """Catches web servers that do not hear of each other, which would all take the address."""
    shown = {"web": ["firewall_openings", "keepalived_members", "keepalived_own_address"]}
    web = {"all": {"children": {"web": {"hosts": {"web2": {"host_address": "10.20.0.19"}}}}}}
    got = baseline(tmp_path, web, shown=shown, edge_virtual_addresses=["10.20.0.10/24"])
    assert got["web2"]["keepalived_members"] == ["10.20.0.20", "10.20.0.19"]
    assert [one["sources"] for one in got["web1"]["firewall_openings"] if one.get("protocol") == "vrrp"] == [["10.20.0.19"]]


def test_http3_opens_its_port_for_datagrams(tmp_path: Path) -> None:
    """Catches HTTP/3 behind a closed door, and a door that stands open without it."""
    shown = {"web": ["firewall_openings"]}
    (tmp_path / "on").mkdir()
    (tmp_path / "off").mkdir()
    found = {}
    for name, http3 in (("on", True), ("off", False)):
        openings = baseline(tmp_path / name, shown=shown, nginx_http3=http3)["web1"]["firewall_openings"]
        found[name] = [(opening["protocol"], port) for opening in openings for port in opening["ports"] if opening["protocol"] == "udp"]
    assert found == {"on": [("udp", 443)], "off": []}


def test_another_application_inherits_nothing_of_the_sample(tmp_path: Path) -> None:
    """Catches a run that migrates, asks or caches another application as if it were the sample."""
    got = baseline(tmp_path, app_name="shop", app_source="/srv/shop", app_wsgi_target="shop:app")
    assert (got["app1"]["app_migrate_command"], got["app1"]["app_static_folder"]) == ("", "")
    assert (got["worker1"]["celery_workers"], got["worker1"]["celery_beat"]) == ([], False)
    assert (got["web1"]["smoke_ready_path"], got["web1"]["smoke_task_path"]) == ("/healthz", "")
    assert {unit["host"] for unit in got["web1"]["smoke_units"]} == set(ADDRESSES) - {"worker1"}
    assert got["web1"]["site_static_immutable"] is False


def test_hooks_reach_the_roles_whose_steps_they_name(tmp_path: Path) -> None:
    """Catches a hook that the operator names and nothing runs."""
    hooks = {
        name: [f"/hooks/{name}.yml"]
        for name in ("before_build", "after_workers", "before_start", "after_switch", "after_stop", "after_failure")
    }
    got = baseline(tmp_path, shown={"all": ["gunicorn_hooks", "celery_hooks"]}, app_hooks=hooks)["app1"]
    assert [*got["gunicorn_hooks"]] == ["before_start", "after_switch", "after_stop", "after_failure"]
    assert [*got["celery_hooks"]] == ["after_workers", "after_failure"]
    for role in ("gunicorn", "celery"):
        assert got[f"{role}_hooks"]["after_failure"] == [str(ROOT / "roles/app/tasks/unlock.yml"), "/hooks/after_failure.yml"]


def test_groups_that_an_application_does_not_use_may_be_missing(tmp_path: Path) -> None:
    """Catches an application without workers and Redis that has to invent hosts for them."""
    group = {"hosts": {"one": {"host_address": "10.20.0.30"}}}
    hosts = {"all": {"vars": {"site_hosts": ["shop.example.com"]}, "children": {"web": group, "app": group, "db": group}}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(hosts))
    shown = {"all": ["firewall_openings", "postgresql_hba", "postgresql_listen_addresses", "nginx_sites", "smoke_units", "database_url"]}
    got = baseline(tmp_path, hosts=tmp_path / "hosts.yml", shown=shown, app_name="shop", app_source="/srv/shop", app_wsgi_target="shop:app")
    assert ports(got["one"]["firewall_openings"]) == {22, 80, 443}
    assert [unit["unit"] for unit in got["one"]["smoke_units"]] == ["postgresql@*.service", "shop-web@*.service", "nginx.service"]


def test_three_hosts_of_the_database_are_a_cluster(tmp_path: Path) -> None:
    """Catches an address that knows one member only or asks it in the clear, members that may not copy each other, and an open etcd."""
    hosts = {name: {"host_address": f"10.20.0.{number}"} for number, name in enumerate(("app1", "db1", "db2", "db3"), 30)}
    children = {"web": {"hosts": {"app1": {}}}, "app": {"hosts": {"app1": {}}}, "db": {"hosts": dict.fromkeys(("db1", "db2", "db3"))}}
    (tmp_path / "hosts.yml").write_text(
        yaml.safe_dump({"all": {"vars": {"site_hosts": ["www.example.com"]}, "hosts": hosts, "children": children}})
    )
    shown = {
        "all": ["database_url", "firewall_openings", "smoke_units"],
        "db": ["postgresql_hba", "postgresql_ident", "postgresql_cluster", "patroni_members", "etcd_members", "patroni_etcd_hosts"],
    }
    got = baseline(tmp_path, hosts=tmp_path / "hosts.yml", shown=shown)
    server, options = got["app1"]["database_url"].split("?")
    assert server.endswith("@/textreport")
    asked = dict(option.split("=") for option in options.split("&"))
    assert (asked["host"], asked["port"]) == ("10.20.0.31,10.20.0.32,10.20.0.33", "5432,5432,5432")
    assert (asked["target_session_attrs"], asked["sslmode"], asked["sslrootcert"]) == (
        "read-write",
        "verify-full",
        "/etc/ssl/groundcrew/ca.pem",
    )
    assert got["db1"]["postgresql_cluster"] is True
    assert (
        got["db1"]["patroni_members"]
        == got["db3"]["etcd_members"]
        == [{"name": f"db{number}", "address": f"10.20.0.3{number}"} for number in (1, 2, 3)]
    )
    assert got["db2"]["patroni_etcd_hosts"] == [f"10.20.0.3{number}:2379" for number in (1, 2, 3)]
    copies = [line for line in got["db1"]["postgresql_hba"] if line.get("method") == "cert"]
    assert {(line["address"], line["users"][0], line["type"]) for line in copies} == {
        (f"10.20.0.3{number}", role, "hostssl") for number in (1, 2, 3) for role in ("patroni_replication", "patroni_rewind")
    }
    assert {line["system"] for line in got["db1"]["postgresql_ident"]} == {"10.20.0.31", "10.20.0.32", "10.20.0.33", "postgres"}
    openings = {one["name"]: one["sources"] for one in got["db1"]["firewall_openings"] if "sources" in one}
    assert openings == {"postgresql": ["10.20.0.30", "10.20.0.32", "10.20.0.33"], "postgresql-cluster": ["10.20.0.32", "10.20.0.33"]}
    assert {"unit": "patroni.service", "host": "db2"} in got["app1"]["smoke_units"]


def test_a_pool_stands_between_the_application_and_the_database(tmp_path: Path) -> None:
    """Catches an address that passes the pool by, a migration that does not, a pool that asks in the clear, and a login that it forgets."""
    asked = ["pgbouncer_servers", "pgbouncer_server_port", "pgbouncer_tls_ca_file", "pgbouncer_databases", "pgbouncer_users"]
    shown = {"app": [*asked, "database_url", "app_migrate_secret_environment", "smoke_units"], "worker": ["database_url"]}
    for folder in ("one", "three", "here"):
        (tmp_path / folder).mkdir()
    changed: dict[str, Any] = {"pgbouncer_port": 16432, "postgresql_port": 15432, "pgbouncer_pool_size": 5}
    rotation = {"step": "begun", "former": {"postgresql": "F0rmerSecret8sZ0p"}}
    got = baseline(tmp_path / "one", shown=shown, database_pooler=True, vault_rotation=rotation, vault_app_secret_key="x", **changed)
    app, login = got["app1"], "postgresql+psycopg://textreport:W4vGq8sZ0pLr2xNd"
    assert app["database_url"] == got["worker1"]["database_url"] == f"{login}@127.0.0.1:16432/textreport"
    migration = app["app_migrate_secret_environment"]["TEXTREPORT_DATABASE_URL"]
    assert migration.startswith(f"{login}@10.20.0.24:15432/textreport?")
    assert "sslmode=verify-full" in migration
    assert (app["pgbouncer_servers"], int(app["pgbouncer_server_port"])) == (["10.20.0.24"], 15432)
    assert (app["pgbouncer_tls_ca_file"], app["pgbouncer_databases"]) == ("/etc/ssl/groundcrew/ca.pem", ["textreport"])
    logins = {user["name"]: user["password"] for user in app["pgbouncer_users"]}
    assert logins == {"textreport": "W4vGq8sZ0pLr2xNd", "textreport_b": "F0rmerSecret8sZ0p"}
    assert {unit["host"] for unit in app["smoke_units"] if unit["unit"] == "pgbouncer.service"} == {"app1", "app2", "worker1"}
    members = {"all": {"children": {"db": {"hosts": {f"db{number}": {"host_address": f"10.20.0.3{number}"} for number in (2, 3)}}}}}
    got = baseline(tmp_path / "three", members, shown=shown, database_pooler=True, vault_app_secret_key="x")
    assert got["app1"]["pgbouncer_servers"] == ["10.20.0.24", "10.20.0.32", "10.20.0.33"]
    assert got["app1"]["database_url"] == f"{login}@127.0.0.1:6432/textreport"
    # Beside the application, a single server is asked as the application would
    both = {"all": {"children": {"app": {"hosts": {"db1": None}}}}}
    got = baseline(tmp_path / "here", both, shown=shown, database_pooler=True, vault_app_secret_key="x")
    assert (got["db1"]["pgbouncer_servers"], got["db1"]["pgbouncer_tls_ca_file"]) == (["127.0.0.1"], "")


def test_three_hosts_of_the_cache_are_a_set(tmp_path: Path) -> None:
    """Catches members that cannot reach each other, clients that ask one host alone, and a password that a single server would need."""
    more = {"hosts": {f"cache{number}": {"host_address": f"10.20.0.{33 + number}"} for number in (2, 3)}}
    hosts = {"all": {**more, "children": {"cache": {"hosts": dict.fromkeys(more["hosts"])}}}}
    shown = {"app": ["broker_url", "cache_url"], "cache": ["redis_members", "redis_addresses", "redis_tls", "openings_cache"]}
    got = baseline(tmp_path, hosts, shown=shown, vault_redis_replication_password="W4vGq8sZ0pLr2xNd")
    members = ["10.20.0.25", "10.20.0.35", "10.20.0.36"]
    assert got["app1"]["broker_url"] == ";".join(f"sentinel://textreport:W4vGq8sZ0pLr2xNd@{one}:26379/0" for one in members)
    assert got["app1"]["cache_url"] == got["app1"]["broker_url"]
    for name, address in zip(["cache1", "cache2", "cache3"], members, strict=True):
        assert got[name]["redis_members"] == members
        assert got[name]["redis_addresses"] == ["127.0.0.1", address]
        assert got[name]["redis_tls"]["key_group"] == "groundcrew-peer"
        (opening,) = got[name]["openings_cache"]
        assert opening["ports"] == [6379, 6380, 26379]
        assert set(opening["sources"]) == {"10.20.0.21", "10.20.0.22", "10.20.0.23", *members} - {address}


def listed(playbook: str, *options: str) -> list[str]:
    """The tasks that a playbook runs on tiers, one after the other, with their tags."""
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(TIERS), playbook, "--list-tasks", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [line.strip() for line in done.stdout.splitlines() if " : " in line]


@pytest.mark.parametrize(
    ("tag", "roles"),
    [("tls", {"tls", "haproxy", "nginx"}), ("app", {"app", "gunicorn", "celery"}), ("nginx", {"nginx"}), ("redis", {"redis"})],
)
def test_a_tag_is_safe_alone(tag: str, roles: set[str]) -> None:
    """Catches a new certificate or release that the service in front of it goes on without."""
    # Checks of variables always run, and change nothing
    tasks = [line for line in listed("site.yml", "--tags", tag) if "always" not in line.rpartition("TAGS: ")[2]]
    assert {line.split(" : ")[0] for line in tasks} == roles


@pytest.mark.parametrize("tag", ["celery", "gunicorn"])
def test_a_tag_that_moves_slots_holds_the_lock(tag: str) -> None:
    """Catches a run of one tag that moves a slot beside another run's release."""
    tasks = [line for line in listed("site.yml", "--tags", tag) if "always" not in line.rpartition("TAGS: ")[2]]
    assert tasks[0].startswith("app : lock | ")
    assert tasks[-1].startswith("app : unlock | Let others release")


def test_a_release_refuses_bad_input_first() -> None:
    """Catches a bad setting of gunicorn or Celery that is found after the migration."""
    tasks = listed("playbooks/deploy.yml")
    first = tasks[: next(number for number, line in enumerate(tasks) if line.startswith("app : lock | "))]
    assert {line.split(" : ")[0] for line in first if "validate | Check the variables" in line} == {"app", "gunicorn", "celery"}


@pytest.mark.parametrize("playbook", ["deploy", "rollback"])
def test_a_release_touches_no_other_component(playbook: str) -> None:
    """Catches a release that runs a task of a database, a cache, a firewall or a web server."""
    assert {line.split(" : ")[0] for line in listed(f"playbooks/{playbook}.yml")} <= {"app", "gunicorn", "celery"}


@pytest.mark.parametrize("login", [0, 1])
def test_both_logins_are_open_in_a_rotation_and_one_after_it(tmp_path: Path, login: int) -> None:
    """Catches a login that the services do not know when the application uses it, or go on to know."""
    names = ["textreport", "textreport_b"]
    new, old = names[login], names[1 - login]
    former = dict.fromkeys(("postgresql", "broker", "cache"), "F0rmerSecret8sZ0p")
    for step, rotation in {"begun": {"step": "begun", "former": former}, "retired": {"step": "retired"}, "": {}}.items():
        (tmp_path / f"at-{step}").mkdir()
        got = baseline(tmp_path / f"at-{step}", vault_login=login, vault_rotation=rotation)
        assert [got["app1"][url].split("//")[1].split(":")[0] for url in ("database_url", "broker_url", "cache_url")] == [new] * 3
        roles = {role["name"]: role for role in got["db1"]["postgresql_roles"]}
        assert roles["textreport_b"]["acts_as"] == "textreport"
        assert roles[new]["password"] == "W4vGq8sZ0pLr2xNd"
        assert roles[old].get("password", "") == ("F0rmerSecret8sZ0p" if step == "begun" else "")
        assert [name for name, role in roles.items() if role.get("login", True)] == (names if step == "begun" else [new])
        users = [(user["instance"], user["name"]) for user in got["cache1"]["redis_users"]]
        assert sorted(users) == sorted(
            (instance, name) for instance in ("broker", "cache") for name in (names if step == "begun" else [new])
        )
        assert got["db1"]["postgresql_hba"][0]["users"] == names


def test_no_two_hosts_of_a_tier_restart_at_once(tmp_path: Path) -> None:
    """Catches slots of hosts that meet, where hosts belong to several tiers too: a host that restarts leaves its tier to the others."""
    tiers = {
        "db": ["all1"],
        "cache": ["all1"],
        "app": ["all1", "app2", "app3"],
        "worker": ["all1", "app2"],
        "web": ["all1", "web2", "web3"],
    }
    hosts: dict[str, Any] = {name: {"hosts": {host: {} for host in members}} for name, members in tiers.items()}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"vars": {"site_hosts": ["www.example.com"]}, "children": hosts}}))
    shown = {"all": ["upgrades_window", "upgrades_position", "upgrades_hosts", "upgrades_other_windows"]}
    got = baseline(tmp_path, hosts=tmp_path / "hosts.yml", shown=shown)
    plugin = runpy.run_path(str(ROOT / "roles/upgrades/filter_plugins/upgrades.py"))

    def refused(facts: dict[str, Any]) -> list[dict[str, str]]:
        window, others = facts["upgrades_window"], facts["upgrades_other_windows"]
        rules: list[dict[str, str]] = plugin["upgrades_rules"](window, 20, facts["upgrades_position"], facts["upgrades_hosts"], others)
        return rules

    slots = {host: plugin["upgrades_slots"](facts["upgrades_window"], 20)[facts["upgrades_position"]] for host, facts in got.items()}
    for members in tiers.values():
        taken = sorted(slots[host] for host in members)
        assert all(later - earlier >= 20 for earlier, later in itertools.pairwise(taken)), slots
    assert not [rule for facts in got.values() for rule in refused(facts)]
    # Where the windows of tiers that share a host meet, the run is refused
    (tmp_path / "met").mkdir()
    met = {tier: {"days": ["sun"], "start": "03:00", "minutes": 60} for tier in tiers}
    got = baseline(tmp_path / "met", hosts=tmp_path / "hosts.yml", shown=shown, reboot_windows=met)
    assert "a window apart" in refused(got["web2"])[0]["allowed"]
