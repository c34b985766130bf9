"""`make secrets`: a vault with fresh values, and never one over real secrets."""

from __future__ import annotations

import importlib
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from tools import secrets
from tools.access import SECRETS, write_private
from tools.console import Problem


@pytest.fixture(autouse=True)
def repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A repository with one environment, staging, and the local one."""
    for name in ("staging", "local"):
        (tmp_path / "inventories" / name / "group_vars").mkdir(parents=True)
    monkeypatch.setattr(secrets, "ROOT", tmp_path)
    monkeypatch.setattr(secrets, "INVENTORIES", tmp_path / "inventories")
    monkeypatch.setattr(secrets, "PASSWORDS", tmp_path / ".vault")
    monkeypatch.delenv("ANSIBLE_VAULT_PASSWORD_FILE", raising=False)
    return tmp_path


def content(vault: Path, password: Path) -> dict[str, object]:
    loaded: dict[str, object] = yaml.safe_load(secrets.ansible_vault("view", password, str(vault)))
    return loaded


def test_every_secret_is_fresh_and_encrypted(repository: Path) -> None:
    vault, password = secrets.make("staging")
    assert vault.read_text().startswith("$ANSIBLE_VAULT;")
    assert password == repository / ".vault" / "staging"
    assert stat.S_IMODE(password.stat().st_mode) == 0o600
    values = content(vault, password)
    assert set(values) == {f"vault_{name}" for name in SECRETS}
    assert len(set(values.values())) == len(SECRETS)


def test_real_secrets_are_never_overwritten() -> None:
    vault, _ = secrets.make("staging")
    before = vault.read_text()
    with pytest.raises(Problem, match="not overwritten"):
        secrets.make("staging")
    assert vault.read_text() == before


def test_the_published_example_is_replaced_by_real_secrets() -> None:
    vault, password = secrets.make("staging", example=True)
    assert content(vault, password)["vault_is_example"] is True
    _, real = secrets.make("staging")
    assert real != password
    assert "vault_is_example" not in content(vault, real)


def test_a_vault_that_only_looks_like_the_example_is_kept(repository: Path) -> None:
    """The example's password file lies about, but the vault has another password."""
    secrets.make("staging")
    write_private(secrets.example_password("staging"), "published\n")
    with pytest.raises(Problem, match="not overwritten"):
        secrets.make("staging")


def test_the_operators_own_password_file_is_used(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = repository / "own-password"
    own.write_text("correct horse battery staple\n")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(own))
    vault, password = secrets.make("staging")
    assert password == own
    assert content(vault, own)
    assert not (repository / ".vault").exists()


def test_a_missing_own_password_file_is_not_made_up(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(repository / "none"))
    with pytest.raises(Problem, match="and is not there"):
        secrets.make("staging")


def executable(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return path


@pytest.mark.parametrize("name", ["password", "password-client"])
def test_a_command_gives_the_password(repository: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Also one that Ansible tells which vault is meant, as it does to those whose names end in -client."""
    own = executable(repository / name, 'echo "battery${*:+ $*}"')
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(own))
    vault, _ = secrets.make("staging")
    said = "battery --vault-id default" if name.endswith("-client") else "battery"
    (repository / "plain").write_text(said)
    assert set(content(vault, repository / "plain")) == {f"vault_{name}" for name in SECRETS}


def test_a_command_beside_the_repository_is_used(repository: Path) -> None:
    (repository / ".vault").mkdir()
    own = executable(repository / ".vault/staging", "echo battery staple")
    assert secrets.make("staging")[1] == own


@pytest.mark.parametrize("text", ["exit 1", "head -c 8 /dev/urandom | od -An -tx1", "true"])
def test_a_command_that_fails_leaves_no_vault(repository: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Catches a vault that nobody can open again."""
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(executable(repository / "own", text)))
    with pytest.raises(Problem):
        secrets.make("staging")
    assert not secrets.vault_file("staging").exists()


def test_the_keyring_keeps_the_password(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a password on the disk, one put over that which the keyring has, and a program that Ansible cannot ask."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyrings.alt.file.PlaintextKeyring")
    monkeypatch.setenv("XDG_DATA_HOME", str(repository / "keyring"))
    vault, password = secrets.make("staging", keyring=True)
    kept = subprocess.run([password], check=True, capture_output=True, text=True).stdout.strip()
    assert len(kept) > 30
    assert kept not in password.read_text()
    assert content(vault, password)
    vault.unlink()
    password.unlink()
    secrets.make("staging", keyring=True)
    assert subprocess.run([password], check=True, capture_output=True, text=True).stdout.strip() == kept


def test_no_keyring_is_said(monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    with pytest.raises(Problem, match="keyring set groundcrew staging failed: "):
        secrets.make("staging", keyring=True)
    assert not (repository / ".vault").exists()


def test_a_plain_file_is_no_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a password on a server's disk that is called kept in a keyring."""
    monkeypatch.delenv("PYTHON_KEYRING_BACKEND", raising=False)
    plain = importlib.import_module("keyrings.alt.file").PlaintextKeyring()
    monkeypatch.setattr("keyring.get_keyring", lambda: plain)
    with pytest.raises(Problem, match="no keyring here but a plain file"):
        secrets.make("staging", keyring=True)


@pytest.mark.parametrize(
    ("where", "text", "why"),
    [
        ("inventories/staging/example-vault-password.txt", "battery", "is in git"),
        (".vault/production", "battery", "names the password of production"),
        ("own", "#!/bin/sh\necho battery\n", "a program that may not be run"),
    ],
)
def test_what_cannot_be_the_password_is_refused(repository: Path, monkeypatch: pytest.MonkeyPatch, where: str, text: str, why: str) -> None:
    """Catches real secrets that anybody can read, or that another environment's password opens."""
    (repository / "inventories/production/group_vars").mkdir(parents=True)
    (repository / where).parent.mkdir(exist_ok=True)
    (repository / where).write_text(text)
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(repository / where))
    with pytest.raises(Problem, match=why):
        secrets.make("staging")
    assert not secrets.vault_file("staging").exists()


@pytest.mark.parametrize(("name", "why"), [("", "no environment"), ("staging", "no secrets of its own yet")])
def test_a_rotation_names_what_is_missing(name: str, why: str) -> None:
    with pytest.raises(Problem, match=why):
        secrets.rotate(name)


@pytest.mark.parametrize("name", ["", "local", "stagin", "../staging"])
def test_only_environments_with_a_vault_get_one(name: str) -> None:
    with pytest.raises(Problem, match="no environment") as raised:
        secrets.make(name)
    assert "staging" in raised.value.remedy
