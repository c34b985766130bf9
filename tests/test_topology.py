"""What the inventory says of hosts and groups is refused where it could not work, with the reason and the place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rendering import FACTS

ROOT = Path(__file__).parent.parent


def inventory(**groups: list[str]) -> dict[str, Any]:
    """One host a name, each with an address of its own."""
    names = sorted({name for members in groups.values() for name in members})
    return {
        "all": {
            "hosts": {name: {"host_address": f"10.20.0.{number}"} for number, name in enumerate(names, 10)},
            "children": {group: {"hosts": dict.fromkeys(members)} for group, members in groups.items()},
        }
    }


def refused(folder: Path, hosts: dict[str, Any], releases: dict[str, str] | None = None) -> str:
    """What the preflight says of this inventory, on one line, or nothing."""
    (folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
    (folder / "group_vars").symlink_to(ROOT / "group_vars")
    facts = {name: FACTS | {"distribution_major_version": (releases or {}).get(name, "13")} for name in hosts["all"]["hosts"]}
    given = {f"ansible_{key}": "{{ __given[inventory_hostname]." + key + " }}" for key in FACTS}
    task = {"name": "Pretend to have gathered facts", "ansible.builtin.set_fact": given | {"cacheable": True}}
    play = {"name": "Give facts", "hosts": "all", "gather_facts": False, "vars": {"__given": facts}, "tasks": [task]}
    (folder / "facts.yml").write_text(json.dumps([play]))
    done = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(folder / "hosts.yml")),
            *(str(folder / "facts.yml"), str(ROOT / "playbooks/preflight_topology.yml")),
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_GATHERING": "explicit"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return " ".join((done.stdout + done.stderr).split()) if done.returncode else ""


@pytest.mark.parametrize(("group", "members"), [("db", ["db1", "db2"]), ("cache", ["cache1", "db1", "db2", "db3"])])
def test_a_tier_that_cannot_agree_is_refused(tmp_path: Path, group: str, members: list[str]) -> None:
    """Catches two members that each believe to be the first, or a fourth that helps nobody."""
    groups = {"web": ["web1"], "app": ["app1"], "db": ["db1"], "cache": ["cache1"]} | {group: members}
    said = refused(tmp_path, inventory(**groups))
    assert f"The group {group} has {len(members)} hosts ({', '.join(members)})" in said
    assert "hosts.yml" in said


def test_an_empty_tier_of_the_application_is_refused(tmp_path: Path) -> None:
    """Catches an edge that has nobody to ask."""
    assert "web and app need a host each" in refused(tmp_path, inventory(web=["web1"], app=[], db=["db1"]))


def test_releases_that_cannot_replicate_are_refused(tmp_path: Path) -> None:
    """Catches a member that could never follow the others, found half-way through a run."""
    groups = {"web": ["web1"], "app": ["app1"], "db": ["db1", "db2", "db3"]}
    said = refused(tmp_path, inventory(**groups), {"db2": "12"})
    assert "The hosts of the group db run Debian 12 and Debian 13" in said


@pytest.mark.parametrize("address", ["127.0.0.1", "10.20.0.10"])
def test_addresses_that_lead_elsewhere_are_refused(tmp_path: Path, address: str) -> None:
    """Catches two hosts of one address, and a host that the others would look for on themselves."""
    hosts = inventory(web=["web1"], app=["app1"])
    hosts["all"]["hosts"]["web1"]["host_address"] = address
    said = refused(tmp_path, hosts)
    assert f"host_address is {address}" in said
    assert "Set it for web1" in said


def test_a_pool_to_nothing_is_refused(tmp_path: Path) -> None:
    """Catches an application that is sent to a pool with no database behind it."""
    hosts = inventory(web=["web1"], app=["app1"])
    for host in hosts["all"]["hosts"].values():
        host["database_pooler"] = True
    said = refused(tmp_path, hosts)
    assert "database_pooler is True" in said
    assert "the group db has a host" in said


@pytest.mark.parametrize("databases", [["web1"], ["db1"], ["web1", "app1", "db1"]])
def test_any_group_may_share_its_hosts(tmp_path: Path, databases: list[str]) -> None:
    """Catches a rule that refuses what works: all on one host, each group on its own, and tiers of three that overlap."""
    assert refused(tmp_path, inventory(web=["web1"], app=["app1"], db=databases, cache=databases)) == ""
