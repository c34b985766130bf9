"""role_variables: each kind of bad input gets one message that names the variable, the value, what is allowed and the file to change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.action.role_variables import MASK, Undefined, Validator, is_placeholder, shown

ROOT = Path(__file__).resolve().parent.parent
ROLE = ROOT / "tests/fixtures/roles/harbor"
OPTIONS = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
DEFAULTS = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
GOOD = {**DEFAULTS, "harbor_admin_password": "W4vGq8sZ0pLr2xNd"}


def validated(values: dict[str, Any]) -> Validator:
    validator = Validator(role="harbor", options=OPTIONS, defaults=DEFAULTS, inventory_dir=str(Path.cwd() / "inventories/test"))
    validator.check({name: value for name, value in {**GOOD, **values}.items() if value is not ...})
    return validator


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"harbor_port": "8443"},  # what -e gives
        {"harbor_sites": [{"name": "a", "aliases": []}, {"name": "b", "aliases": None}]},
        {"harbor_users": [{"name": "alice", "password": "W4vGq8sZ0pLr2xNd"}]},
        {"harbor_secret_environment": {"KEY": "b2VqZHdoZWRmd2VmCg=="}},
        {"harbor_proxy": ""},
    ],
)
def test_good_values_pass(values: dict[str, Any]) -> None:
    assert validated(values).problems == []


VARS = "set it in inventories/test/group_vars/all/main.yml"
VAULT = "set it in inventories/test/group_vars/all/vault.yml"


@pytest.mark.parametrize(
    ("values", "variable", "value", "allowed", "change"),
    [
        ({"harbor_port": "http"}, "harbor_port", '"http"', "an integer", VARS),
        ({"harbor_port": True}, "harbor_port", "true", "an integer", VARS),
        ({"harbor_port": 44.3}, "harbor_port", "44.3", "an integer", VARS),
        ({"harbor_port": None}, "harbor_port", "null", "an integer", VARS),
        ({"harbor_mode": "acme"}, "harbor_mode", '"acme"', 'one of "internal", "provided"', VARS),
        ({"harbor_mode": False}, "harbor_mode", "false", 'one of "internal", "provided"', VARS),
        ({"harbor_enabled": "maybe"}, "harbor_enabled", '"maybe"', "true or false", VARS),
        ({"harbor_enabled": "false"}, "harbor_enabled", '"false"', "true or false", VARS),  # a string that is true in every template
        ({"harbor_sites": "a,b"}, "harbor_sites", '"a,b"', "a list of dictionaries", VARS),
        ({"harbor_sites": ["a"]}, "harbor_sites[0]", '"a"', "a dictionary", VARS),
        ({"harbor_sites": [{}]}, "harbor_sites[0].name", "(not set)", "must be set, to a string: The site's name.", VARS),
        ({"harbor_sites": [{"name": None}]}, "harbor_sites[0].name", "null", "a string", VARS),
        ({"harbor_sites": [{"name": "a", "alias": ["b"]}]}, "harbor_sites[0].alias", '["b"]', "did you mean aliases?", VARS),
        ({"harbor_sites": [{"name": "a", "aliases": [["b"]]}]}, "harbor_sites[0].aliases[0]", '["b"]', "a string", VARS),
        ({"harbor_environment": ["A=1"]}, "harbor_environment", '["A=1"]', "a dictionary", VARS),
        ({"harbor_environment": {"A": Undefined("'x' is undefined")}}, "harbor_environment.A", "'x' is undefined", "must be set", "set x"),
        ({"harbor_admin_password": ...}, "harbor_admin_password", "(not set)", "must be set", VAULT),
        ({"harbor_admin_password": ""}, "harbor_admin_password", "(empty)", "not an empty one", VAULT),
        ({"harbor_admin_password": "change_me"}, "harbor_admin_password", MASK, "placeholder", VAULT),
        ({"harbor_admin_password": "k3Jd9sLw0q"}, "harbor_admin_password", MASK, "at least 12 characters", VAULT),
        ({"harbor_admin_password": ["k3Jd9sLw0qXX"]}, "harbor_admin_password", MASK, "a string", VAULT),
        ({"harbor_secret_environment": {"KEY": "<secret>"}}, "harbor_secret_environment.KEY", MASK, "placeholder", VAULT),
        ({"harbor_secret_environment": {"KEY": 1234}}, "harbor_secret_environment.KEY", MASK, "12 characters", VAULT),
        (
            {"harbor_admin_password": Undefined("'vault_harbor_password' is undefined")},
            "harbor_admin_password",
            "'vault_harbor_password' is undefined",
            "must be set",
            "set vault_harbor_password in inventories/test/group_vars/all/vault.yml",
        ),
        (
            {"harbor_users": [{"name": "alice", "password": "example-password-1"}]},
            "harbor_users[0].password",
            MASK,
            "placeholder",
            VAULT,
        ),
        (  # what stands where a secret belongs may be one
            {"harbor_users": [{"name": "alice", "passwort": "W4vGq8sZ0pLr2xNd", "password": "W4vGq8sZ0pLr2xNe"}]},
            "harbor_users[0].passwort",
            MASK,
            "did you mean password?",
            VARS,
        ),
        ({"harbor_users": ["alice:W4vGq8sZ0pLr2xNd"]}, "harbor_users[0]", MASK, "a dictionary", VARS),
    ],
)
def test_bad_values_are_refused(values: dict[str, Any], variable: str, value: str, allowed: str, change: str) -> None:
    (problem,) = validated(values).problems
    assert problem.variable == variable
    assert value in problem.value
    assert allowed in problem.allowed
    assert change in problem.change


@pytest.mark.parametrize(
    ("name", "value", "shows", "suggestion"),
    [
        ("harbor_prot", 80, "80", "did you mean harbor_port"),
        ("harbor_enable", "{{ x }}", '"{{ x }}"', "did you mean harbor_enabled"),
        ("harbor_admin_passwort", "W4vGq8sZ0pLr2xNd", MASK, "did you mean harbor_admin_password"),
        ("harbor_secret_environ", {"A": "b"}, MASK, "did you mean harbor_secret_environment"),
        ("harbor_site", [{"name": "a"}], "(a list)", "did you mean harbor_sites"),
        ("harbor_qqq", 1, "1", "harbor_admin_password, harbor_enabled"),
    ],
)
def test_unknown_names_are_refused(name: str, value: Any, shows: str, suggestion: str) -> None:
    validator = validated({})
    validator.check_names({**GOOD, name: value, "harbor_made": 1}, known={"harbor_made"})
    (problem,) = validator.problems
    assert problem.variable == name
    assert problem.value == shows
    assert suggestion in problem.allowed


def test_a_specification_may_tie_keys_together() -> None:
    options = {
        "harbor_ties": {
            "type": "dict",
            "required_together": [["user", "password"]],
            "options": {"user": {"type": "str"}, "password": {"type": "str", "no_log": True}},
        }
    }
    validator = Validator(role="harbor", options=options)
    validator.check({"harbor_ties": {"password": "W4vGq8sZ0pLr2xNd"}})
    (problem,) = validator.problems
    assert problem.value == '{"password": "********"}'
    assert problem.allowed == "parameters are required together: user, password"


def test_every_problem_is_reported_at_once() -> None:
    problems = validated({"harbor_port": "http", "harbor_mode": "acme", "harbor_admin_password": ...}).problems
    assert [problem.variable for problem in problems] == ["harbor_port", "harbor_mode", "harbor_admin_password"]


PLACEHOLDERS = """
change_me, CHANGEME, please change-me now, changeme123456, xxxxxxxxxxxxxxxx, TODO, example, your-password-here, <your password>, secret,
placeholder-value, SecretPassword123, password123456, 0000000000000000, replace_me_please, my-test-secret-key, postgresql://u:CHANGE_ME@db/n
"""
KEY_TEXT = "\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\n".join(f"-----{word} PRIVATE KEY-----" for word in ("BEGIN", "END"))


@pytest.mark.parametrize("text", [text.strip() for text in PLACEHOLDERS.split(",")])
def test_placeholders_are_known(text: str) -> None:
    assert is_placeholder(text)


@pytest.mark.parametrize(
    "text",
    [
        "W4vGq8sZ0pLr2xNd",
        "correct horse battery staple",
        "b2VqZHdoZWRmd2VmCg==",
        "postgresql://app:W4vGq8sZ0p@db/app",
        "secretariat-9f",
        KEY_TEXT,
    ],
)
def test_secrets_are_no_placeholders(text: str) -> None:
    assert not is_placeholder(text)


def test_long_values_are_shortened() -> None:
    assert len(shown("x" * 5000)) <= 120


@pytest.mark.parametrize(
    ("files", "named"),
    [([], "all/main.yml"), (["all/main.yml"], "all/main.yml"), (["all/harbor.yml"], "all/harbor.yml"), (["all.yml"], "all.yml")],
)
def test_the_file_to_change_is_one_that_ansible_reads(tmp_path: Path, files: list[str], named: str) -> None:
    """Catches a new file in group_vars/all/ that makes Ansible pass over the all.yml that is there."""
    for file in files:
        (tmp_path / "group_vars" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "group_vars" / file).touch()
    assert (
        Validator(role="harbor", options={}, inventory_dir=str(tmp_path)).environment_file({}) == f"set it in {tmp_path}/group_vars/{named}"
    )


PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Validate
      ansible.builtin.include_role:
        name: harbor
        tasks_from: validate
"""
SECRETS = ["hunter2hunter2", "Sh0rtSecret", "change_me_tomorrow", "Typ0edSecretTyp0ed"]
FILES = {
    "inv/hosts.yml": {"all": {"hosts": {"good": {}, "typed": {}, "ruled": {}, "rule_fails": {}}}},
    "inv/group_vars/all/harbor.yml": {
        "harbor_admin_password": "{{ vault_admin }}",
        "harbor_users": [{"name": "alice", "password": "{{ vault_alice }}"}],
    },
    "inv/group_vars/all/vault.yml": {"vault_admin": "W4vGq8sZ0pLr2xNd", "vault_alice": "W4vGq8sZ0pLr2xNe"},
    "inv/host_vars/typed.yml": {
        "harbor_port": "http",
        "harbor_secret_environment": {"A": "{{ vault_short }}", "B": "{{ vault_missing }}"},
        "harbor_users": [{"name": "bob", "password": "{{ vault_bob }}"}, {"name": "eve", "passwort": "Typ0edSecretTyp0ed"}],
        "harbor_prot": 80,
        "harbor_admin_passwort": "hunter2hunter2",
        "vault_short": "Sh0rtSecret",
        "vault_bob": "change_me_tomorrow",
    },
    "inv/host_vars/ruled.yml": {"harbor_port": 70000, "harbor_sites": [{"name": "a"}, {"name": "a"}]},
    "inv/host_vars/rule_fails.yml": {"harbor_environment": {"NUMBER": "many"}},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """One ansible-playbook in check mode over all hosts of FILES, as verbose as the secrets' test asks for."""
    folder = tmp_path_factory.mktemp("harbor")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(yaml.safe_dump(content))
    (folder / "play.yml").write_text(PLAYBOOK)
    (folder / "ansible.cfg").write_text(f"[defaults]\nroles_path = {ROLE.parent}\naction_plugins = {ROOT}/plugins/action\nnocolor = true\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "inv", "play.yml", "--check", "-vvv"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def message(run: subprocess.CompletedProcess[str], host: str) -> str:
    start = run.stdout.index(f"fatal: [{host}]: FAILED! => ") + len(f"fatal: [{host}]: FAILED! => ")
    text: str = json.JSONDecoder().raw_decode(run.stdout[start:])[0]["msg"]
    return text


def test_a_playbook_stops_with_variable_value_allowed_and_file(run: subprocess.CompletedProcess[str]) -> None:
    assert run.returncode == 2
    text = message(run, "typed")
    assert "Role harbor refuses 8 variables:" in text
    for expected in (
        'harbor_port\n    value:   "http"\n    allowed: an integer\n    change:  inv/host_vars/typed.yml, line 2\n',
        f"harbor_users[0].password\n    value:   {MASK}\n    allowed: a secret of your own; this is a placeholder\n    change:  inv/host_vars/typed.yml",
        "harbor_users[1].password\n    value:   (not set)\n",
        f"harbor_secret_environment.A\n    value:   {MASK}\n",
        "change:  set vault_missing in inv/group_vars/all/vault.yml (asked for in inv/host_vars/typed.yml, line ",
        "harbor_prot\n    value:   80\n    allowed: a variable that role harbor knows; did you mean harbor_port",
    ):
        assert expected in text


def test_rules_are_read_once_types_are_right(run: subprocess.CompletedProcess[str]) -> None:
    text = message(run, "ruled")
    assert "harbor_port\n    value:   70000\n    allowed: a port from 1 to 65535\n    change:  inv/host_vars/ruled.yml, line 1\n" in text
    assert 'harbor_sites\n    value:   ["a", "a"]\n    allowed: sites with names that differ\n' in text


def test_a_rule_that_cannot_be_evaluated_counts_as_refused(run: subprocess.CompletedProcess[str]) -> None:
    text = message(run, "rule_fails")
    assert 'harbor_environment\n    value:   {"NUMBER": "many"}\n    allowed: a number in NUMBER (the check failed: ' in text


def test_good_variables_pass_and_nothing_is_contacted(run: subprocess.CompletedProcess[str]) -> None:
    assert "ok: [good]" in run.stdout
    assert "ESTABLISH" not in run.stdout


def test_no_secret_is_in_the_output(run: subprocess.CompletedProcess[str]) -> None:
    assert run.stdout.count(MASK) > 2
    for secret in [*SECRETS, "W4vGq8sZ0pLr2xN"]:
        assert secret not in run.stdout + run.stderr


def test_what_the_baseline_makes_of_a_value_is_changed_in_the_environment(tmp_path: Path) -> None:
    """Catches a message that has an operator edit what all environments share."""
    (tmp_path / "group_vars/all").mkdir(parents=True)
    (tmp_path / "group_vars/all/harbor.yml").write_text("harbor_port: 70000\n")
    own = tmp_path / "inventories/test"
    value = Tagged(str(tmp_path / "group_vars/all/harbor.yml"))
    told = Validator(role="harbor", options={}, inventory_dir=str(own)).place(None, {}, value)
    assert told == f"set it in {own}/group_vars/all/main.yml (asked for in {tmp_path}/group_vars/all/harbor.yml, line 1)"
    assert Validator(role="harbor", options={}, inventory_dir=str(tmp_path)).place(None, {}, value).startswith(f"{tmp_path}/group_vars")


@dataclass
class Tagged:
    """Where Ansible says that a value was written."""

    path: str
    line_num: int = 1
