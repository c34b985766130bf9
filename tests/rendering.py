"""Renders a role's template as ansible.builtin.template would, in this process: with the role's defaults, its vars, and what a test sets."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template

ROLES = Path(__file__).resolve().parent.parent / "roles"
MANAGED = "Ansible managed"
# Of a small server, as ansible_facts holds them
FACTS: dict[str, Any] = {
    "distribution": "Debian",
    "distribution_major_version": "13",
    "distribution_release": "trixie",
    "distribution_version": "13.1",
    "env": {"SSH_CONNECTION": "192.0.2.1 50000 192.0.2.2 22"},
    "memtotal_mb": 2048,
    "os_family": "Debian",
    "processor_vcpus": 2,
    "virtualization_tech_guest": [],
}
# As a fact cache or set_fact holds them
PREFIXED_FACTS = {f"ansible_{name}": value for name, value in FACTS.items()}


@functools.cache
def loader() -> DataLoader:
    init_plugin_loader()
    return DataLoader()


def trusted(value: Any) -> Any:
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, dict):
        return {key: trusted(below) for key, below in value.items()}
    return [trusted(below) for below in value] if isinstance(value, list) else value


@functools.cache
def own_variables(role: str) -> dict[str, Any]:
    """The role's defaults and constants, with the templates in them ready to be rendered."""
    variables: dict[str, Any] = {}
    folder = ROLES / role
    for path in (folder / "defaults/main.yml", folder / "vars/main.yml", *sorted(folder.glob("vars/main/*.yml"))):
        if path.exists():
            variables |= yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return {name: trusted(value) for name, value in variables.items()}


def value(role: str, name: str, **variables: Any) -> Any:
    """A variable of a role, as its tasks would see it."""
    return Templar(loader(), variables={**own_variables(role), **variables}).template(own_variables(role)[name])


def render(role: str, template: str, facts: dict[str, Any] | None = None, **variables: Any) -> str:
    text = (ROLES / role / "templates" / template).read_text(encoding="utf-8")
    available = {**own_variables(role), "ansible_managed": MANAGED, "ansible_facts": FACTS | (facts or {}), **variables}
    # Templates include others of their role
    templar = Templar(loader(), variables=available).copy_with_new_env(searchpath=[str(ROLES / role / "templates")])
    return str(templar.template(trust_as_template(text), escape_backslashes=False))
