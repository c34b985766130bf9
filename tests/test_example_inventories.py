"""The example inventories are complete, hold no other hosts than they show, and nobody goes live with their published secrets.

An operator writes real hosts and secrets over them: what then cannot be read here any more is skipped, and says so.
"""

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
import yaml
from ansible.plugins.inventory import detect_range, expand_hostname_range

from tests.rendering import PREFIXED_FACTS
from tools import secrets

ROOT = Path(__file__).parent.parent
ENVIRONMENTS = sorted(path.parent.name for path in ROOT.glob("inventories/*/hosts.yml"))


def needs_example(environment: str) -> None:
    if not secrets.is_example(environment):
        pytest.skip(f"the vault of inventories/{environment} is not the published example: its password is the operator's")


def preflight(folder: Path, environment: str, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run the preflight of an environment, with facts given in place of those that its hosts would tell."""
    inventory = ROOT / "inventories" / environment
    facts = {**PREFIXED_FACTS, "cacheable": True}
    task = {"name": "Pretend to have gathered facts", "ansible.builtin.set_fact": facts}
    (folder / "facts.yml").write_text(json.dumps([{"name": "Give facts", "hosts": "all", "gather_facts": False, "tasks": [task]}]))
    return subprocess.run(
        [
            *(str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(inventory)),
            *("--vault-password-file", str(inventory / "example-vault-password.txt")),
            *("-e", json.dumps(variables), str(folder / "facts.yml"), "playbooks/preflight.yml"),
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_GATHERING": "explicit"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def inventory_of(inventory: Path) -> subprocess.CompletedProcess[str]:
    """Read an inventory with nothing but the repository's ansible.cfg."""
    command = [str(Path(sys.executable).parent / "ansible-inventory"), "-i", str(inventory), "--graph"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def named_hosts(group: dict[str, Any]) -> set[str]:
    """The hosts that a group of hosts.yml names, in itself and below it; a range such as app[1:3] names each of its hosts."""
    names: set[str] = set()
    for name in group.get("hosts") or {}:
        names.update(expand_hostname_range(name) if detect_range(name) else [name])
    return names.union(*(named_hosts(child or {}) for child in (group.get("children") or {}).values()))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_hosts_are_those_of_hosts_yml(environment: str) -> None:
    """Catches another file of an environment's folder that Ansible reads as hosts, such as a password."""
    inventory = ROOT / "inventories" / environment
    done = inventory_of(inventory)
    assert done.returncode == 0, done.stderr
    groups = yaml.safe_load((inventory / "hosts.yml").read_text(encoding="utf-8"))
    assert set(re.findall(r"--([^@:\s]+)$", done.stdout, re.MULTILINE)) == named_hosts({"children": groups})


def test_a_password_beside_the_hosts_becomes_no_host(tmp_path: Path) -> None:
    """Catches an operator's own password that Ansible takes for a host, and shows to everybody who lists them."""
    shutil.copy(ROOT / "tests/fixtures/tiers/hosts.yml", tmp_path)
    (tmp_path / "vault-password").write_text("a-password-of-ones-own\n")
    done = inventory_of(tmp_path)
    assert done.returncode != 0
    assert f"{tmp_path}/vault-password" in done.stderr
    assert "a-password-of-ones-own" not in done.stdout + done.stderr


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_example_is_complete(environment: str, tmp_path: Path) -> None:
    """Catches an example that lacks a variable, misspells one, or breaks a rule of a role."""
    needs_example(environment)
    done = preflight(tmp_path, environment, vault_is_example=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_example_secrets_are_refused(tmp_path: Path) -> None:
    """Catches an environment that goes live with secrets that anyone can read in the repository."""
    needs_example("staging")
    done = preflight(tmp_path, "staging")
    assert done.returncode != 0
    assert "make secrets ENV=staging" in done.stdout


def test_misspelled_names_of_the_environment_are_refused(tmp_path: Path) -> None:
    """Catches a setting that nothing reads, and that the operator believes in: an address, a port, who may log in."""
    needs_example("staging")
    wrong = {
        "appname": "shop",
        "vault_app_secret_kee": "x",
        "host_adress": "10.20.0.24",
        "brokr_port": 6400,
        "opening_admin": [],
        "site_host": ["www.example.com"],
    }
    done = preflight(tmp_path, "staging", vault_is_example=False, **wrong, openings_monitoring=[], db_name="shop", cache_ttl=60)
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    for name, meant in zip(
        wrong, ["app_name", "vault_app_secret_key", "host_address", "broker_port", "openings_admin", "site_hosts"], strict=True
    ):
        assert f"{name} allowed: did you mean {meant}?" in said
    assert "openings_monitoring" not in said
    assert "db_name" not in said
    assert "cache_ttl" not in said


def test_one_name_of_the_site_is_no_list(tmp_path: Path) -> None:
    """Catches a message about certificates for a variable that everybody writes first."""
    needs_example("staging")
    done = preflight(tmp_path, "staging", vault_is_example=False, site_hosts="www.example.com")
    assert done.returncode != 0
    assert "site_hosts is a list" in done.stdout
