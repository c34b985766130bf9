"""Before anything changes, the members of data tiers are asked who they are: what the inventory would take from them is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
ADDRESSES = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
BROKER = {"name": "broker", "port": 6379, "maxmemory_mb": 16, "maxmemory_policy": "noeviction", "persistence": "aof"}
LISTED = ["a1, started, db1, https://10.0.0.1:2380, https://10.0.0.1:2379, false", "a2, started, db2, https://10.0.0.2:2380, , false"]
WAITING = "a3, unstarted, , https://10.0.0.3:2380, , false"
STRANGER = "ab12, started, db4, https://10.0.0.4:2380, https://10.0.0.4:2379, false"


def entry(folder: Path, role: str, name: str, hosts: dict[str, dict[str, Any]], **variables: Any) -> str:
    """What an entry of a role says on these hosts, which are all this one, on one line; nothing where it refuses nothing."""
    task = {"name": "Ask", "ansible.builtin.import_role": {"name": role, "tasks_from": name}}
    play = {"name": "Ask", "hosts": "all", "gather_facts": False, "any_errors_fatal": True, "tasks": [task]}
    (folder / "play.yml").write_text(json.dumps([play]))
    (folder / "hosts.yml").write_text(json.dumps({"all": {"hosts": hosts}}))
    common = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
    done = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(folder / "hosts.yml")),
            *("-e", json.dumps(common | variables), str(folder / "play.yml")),
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_ROLES_PATH": str(ROOT / "roles"), "ANSIBLE_LIBRARY": str(ROOT / "plugins/modules")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 0 or "Action failed:" in said, said
    return said if done.returncode else ""


@pytest.mark.parametrize(("listed", "refused"), [([*LISTED, WAITING], False), ([*LISTED, STRANGER], True), (None, False)])
def test_a_member_that_etcd_still_counts_is_not_left_out(tmp_path: Path, listed: list[str] | None, refused: bool) -> None:
    """Catches a tier made smaller whose etcd goes on to need the votes of hosts that are gone, found out when the next one fails."""
    program = tmp_path / "etcdctl"
    if listed is not None:
        program.write_text("#!/bin/sh\nprintf '%s\\n' " + " ".join(f"'{line}'" for line in listed) + "\n")
        program.chmod(0o755)
    members = [{"name": f"db{number}", "address": address} for number, address in enumerate(ADDRESSES, 1)]
    said = entry(tmp_path, "etcd", "left", {"db1": {"etcd_name": "db1"}}, etcd_members=members, __etcd_ctl=[str(program)])
    assert bool(said) is refused, said
    if refused:
        assert "ab12, started, db4, https://10.0.0.4:2380" in said
        assert f"sudo {program} member remove ab12" in said


@pytest.mark.parametrize(
    ("there", "refused"),
    [
        ({}, ""),
        ({"cache1": ["appendonlydir"]}, ""),
        ({"cache2": ["appendonlydir"]}, "cache2 has data of its own"),
        ({"cache1": ["appendonlydir", "server.conf"], "cache2": ["dump.rdb", "server.conf"]}, ""),
        ({"cache1": ["dump.rdb"], "cache3": ["server.conf"]}, "cache1 has data of its own"),
    ],
)
def test_data_that_would_be_replaced_is_refused_on_any_host(tmp_path: Path, there: dict[str, list[str]], refused: str) -> None:
    """Catches a run that has begun a set on the first host before it finds that another one has the data."""
    hosts: dict[str, dict[str, Any]] = {}
    for number, address in enumerate(ADDRESSES, 1):
        name = f"cache{number}"
        for file in there.get(name, []):
            (tmp_path / name / "broker" / file).mkdir(parents=True)
        hosts[name] = {"redis_addresses": ["127.0.0.1", address]}
    path = str(tmp_path / "{{ inventory_hostname }}")
    said = entry(tmp_path, "redis", "data", hosts, redis_members=ADDRESSES, redis_instances=[BROKER], __redis_data_path=path)
    assert bool(said) is bool(refused), said
    assert refused in said


@pytest.mark.parametrize(("of_set", "refused"), [(True, True), (False, False)])
def test_no_single_host_is_made_of_a_set(tmp_path: Path, of_set: bool, refused: bool) -> None:
    """Catches one host taken for a single server over which the Sentinels of the others still decide."""
    file = tmp_path / "sentinel.conf"
    if of_set:
        file.touch()
    said = entry(tmp_path, "redis", "left", {"cache1": {}}, redis_instances=[BROKER], __redis_sentinel_file=str(file))
    assert bool(said) is refused, said
    assert not refused or "cache1 is one of a set of several members" in said
