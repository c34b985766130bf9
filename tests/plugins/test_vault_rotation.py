"""The vault in a rotation: each step once, old values kept while they are good, encrypted at any moment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret

from plugins.action import vault_rotation
from plugins.action.vault_rotation import RotationError, advance, changes, written

VAULT = """---
# A comment of the operator's
vault_postgresql_app_password: old-database
vault_redis_broker_password: "old-broker"
vault_redis_cache_password: >-
  old-cache
vault_app_secret_key: old-key   # signs sessions
vault_tls_private_key: |
  -----BEGIN
  vault_app_secret_key: in a text

  END-----
"""
OLD = {"postgresql": "old-database", "broker": "old-broker", "cache": "old-cache"}


@pytest.fixture
def vault() -> VaultLib:
    return VaultLib([("default", VaultSecret(b"other")), ("staging", VaultSecret(b"password"))])


@pytest.fixture
def file(vault: VaultLib, tmp_path: Path) -> Path:
    path = tmp_path / "vault.yml"
    path.write_bytes(vault.encrypt(VAULT, VaultSecret(b"password"), "staging"))
    path.chmod(0o640)
    return path


def content(vault: VaultLib, file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(vault.decrypt(file.read_bytes()))
    return found


def test_a_rotation_from_end_to_end(vault: VaultLib, file: Path) -> None:
    """Catches a step that loses a value which is still in use, keeps one that must go, or touches what is not its own."""
    before = content(vault, file)
    assert advance(vault, file, "begun", check=False)
    begun = content(vault, file)
    assert begun["vault_login"] == 1
    assert begun["vault_rotation"] == {"step": "begun", "former": OLD}
    assert begun["vault_app_secret_key"] == "old-key"
    (key,) = begun["vault_app_secret_key_fallbacks"]
    new = {begun[name] for name in vault_rotation.SERVICES.values()} | {key}
    assert len(new) == 4
    assert not new & set(OLD.values())
    assert not advance(vault, file, "begun", check=False), "a rotation that is under way goes on with its values"
    assert content(vault, file) == begun
    assert advance(vault, file, "signing", check=False)
    signing = content(vault, file)
    assert (signing["vault_app_secret_key"], signing["vault_app_secret_key_fallbacks"]) == (key, ["old-key"])
    assert signing["vault_rotation"]["former"] == OLD
    for earlier in ("begun", "signing"):
        assert not advance(vault, file, earlier, check=False)
    assert advance(vault, file, "retired", check=False)
    assert content(vault, file)["vault_rotation"] == {"step": "retired"}
    assert advance(vault, file, "ended", check=False)
    assert advance(vault, file, "forgotten", check=False)
    assert not advance(vault, file, "forgotten", check=False)
    after = content(vault, file)
    assert after == before | {
        **{name: begun[name] for name in vault_rotation.SERVICES.values()},
        "vault_app_secret_key": key, "vault_app_secret_key_fallbacks": [], "vault_login": 1, "vault_generation": 1, "vault_rotation": {},
    }  # fmt: skip
    assert b"# A comment of the operator's" in vault.decrypt(file.read_bytes())
    assert advance(vault, file, "begun", check=False)
    assert content(vault, file)["vault_login"] == 0


def test_it_stays_encrypted_for_the_same_password_and_readers(vault: VaultLib, file: Path) -> None:
    advance(vault, file, "begun", check=False)
    assert file.read_text().startswith("$ANSIBLE_VAULT;1.2;AES256;staging\n")
    assert VaultLib([("x", VaultSecret(b"password"))]).decrypt(file.read_bytes())
    assert file.stat().st_mode & 0o777 == 0o640
    assert list(file.parent.iterdir()) == [file]


def test_a_run_that_ends_while_it_writes_leaves_the_file_before(vault: VaultLib, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def killed(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            advance(vault, file, "begun", check=False)
    assert file.read_bytes() == before
    assert all(path.read_bytes().startswith(b"$ANSIBLE_VAULT;") for path in file.parent.iterdir())
    assert advance(vault, file, "begun", check=False)


def test_a_check_run_writes_nothing(vault: VaultLib, file: Path) -> None:
    before = file.read_bytes()
    assert [advance(vault, file, step, check=True) for step in ("begun", "signing", "retired", "ended")] == [True, False, False, False]
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("rotation", "to", "says"),
    [
        ({}, "signing", "too early for signing"),
        ({"step": "begun"}, "retired", "at begun, too early"),
        ({"step": "begun"}, "ended", "before it may end"),
        ({"step": "signing"}, "forgotten", "is under way"),
        ({"step": "other"}, "begun", "not known"),
    ],
)
def test_no_step_is_left_out(rotation: dict[str, Any], to: str, says: str) -> None:
    """Catches a run that begins in the middle, and would close what is in use."""
    with pytest.raises(RotationError, match=says):
        changes({"vault_app_secret_key": "x", "vault_rotation": rotation}, to)


def test_what_an_environment_does_not_have_is_not_made_up() -> None:
    new = changes({"vault_app_secret_key": "old"}, "begun")
    assert set(new) == {"vault_app_secret_key_fallbacks", "vault_rotation"}
    assert new["vault_rotation"]["former"] == {}
    with pytest.raises(RotationError, match="it has no vault_redis_broker_password and no vault_redis_cache_password: one login"):
        changes({vault_rotation.SERVICES["postgresql"]: "old"}, "begun")
    with pytest.raises(RotationError, match="has none of"):
        changes({"vault_of_another": "x"}, "begun")


@pytest.mark.parametrize(
    "text",
    ["vault_app_secret_key: !vault |\n  $ANSIBLE_VAULT\n", "{vault_app_secret_key: old, other: kept}\n", "- a list\n", "a: [hunter2\n"],
)
def test_a_vault_that_cannot_be_edited_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(RotationError) as caught:
        written(text, {"vault_app_secret_key": "new"})
    assert "hunter2" not in str(caught.value)


def test_values_by_a_lookup_and_open_vaults_are_refused(vault: VaultLib, tmp_path: Path) -> None:
    with pytest.raises(RotationError, match="no plain value"):
        changes({"vault_app_secret_key": "{{ lookup('file', 'x') }}"}, "begun")
    (tmp_path / "vault.yml").write_text(VAULT)
    with pytest.raises(RotationError, match="not encrypted as a whole"):
        advance(vault, tmp_path / "vault.yml", "begun", check=False)
    with pytest.raises(RotationError, match="not there"):
        advance(vault, tmp_path / "none.yml", "begun", check=False)
