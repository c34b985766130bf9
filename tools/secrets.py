"""Fresh secrets for an environment, in its encrypted vault; a vault that holds real ones is never overwritten.

Its password comes from where Ansible would take it: what ANSIBLE_VAULT_PASSWORD_FILE names, else .vault/ENV. Each may be a file with the
password or a program that prints it; with --keyring, .vault/ENV becomes one that asks this machine's keyring.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
import subprocess
import sys
from pathlib import Path

import keyring
import yaml

from tools import console
from tools.access import SECRETS, private_directory, write_private
from tools.console import ROOT, Problem, run_command, say

INVENTORIES = ROOT / "inventories"
PASSWORDS = ROOT / ".vault"
EXAMPLE_MARK = "vault_is_example"


def vault_file(environment: str) -> Path:
    return INVENTORIES / environment / "group_vars" / "all" / "vault.yml"


def example_password(environment: str) -> Path:
    return INVENTORIES / environment / "example-vault-password.txt"


def environments() -> list[str]:
    """The environments that keep their secrets in a vault; the local ones are made by `make up`."""
    return sorted(path.parent.name for path in INVENTORIES.glob("*/group_vars") if path.parent.name != "local")


def ansible_vault(action: str, password_file: Path, *arguments: str, text: str | None = None) -> str:
    """Run ansible-vault with this password and no other; plain text goes through pipes only."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "ansible-vault"),
            action,
            *("--vault-password-file", str(password_file)),
            *arguments,
        ],
        check=False,
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        capture_output=True,
        text=True,
        env={**environment, "ANSIBLE_CONFIG": str(console.ROOT / "ansible.cfg")},
    )
    if done.returncode != 0:
        raise Problem(f"ansible-vault {action} failed: {done.stderr.strip()}", f"Does {password_file} give the right password?")
    return done.stdout


def is_example(environment: str) -> bool:
    """Is the vault the published example, which anybody can read?"""
    if not example_password(environment).exists():
        return False
    try:
        content = yaml.safe_load(ansible_vault("view", example_password(environment), str(vault_file(environment))))
    except (Problem, yaml.YAMLError):
        return False
    return isinstance(content, dict) and content.get(EXAMPLE_MARK) is True


def fresh_secrets(*, example: bool) -> str:
    """The vault's content, with freshly generated values."""
    mark = f"# Published with its password: shows the form and nothing else\n{EXAMPLE_MARK}: true\n" if example else ""
    return f"---\n{mark}" + "".join(f"vault_{name}: {secrets.token_urlsafe(32)}\n" for name in SECRETS)


def keep_in_keyring(environment: str) -> str:
    """Have the keyring hold a password, a new one where it has none; returns the program that asks for it."""
    backend: object = keyring.get_keyring()
    backend = next(iter(getattr(backend, "backends", ())), backend)
    if type(backend).__module__.startswith("keyrings.alt") and "PYTHON_KEYRING_BACKEND" not in os.environ:
        raise Problem("there is no keyring here but a plain file", "A server has none: leave KEYRING out")
    program = str(Path(sys.executable).parent / "keyring")
    ask = [program, "get", "groundcrew", environment]
    known = subprocess.run(ask, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if known.returncode or not known.stdout.strip():
        put = [program, "set", "groundcrew", environment]
        done = subprocess.run(put, check=False, input=secrets.token_urlsafe(32), capture_output=True, text=True)
        if done.returncode:
            why = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise Problem(f"{shlex.join(put)} failed: {why}", "Is it unlocked? A server has none: leave KEYRING out")
    return f"#!/bin/sh\n# Prints the password of the vault of {environment}, from the keyring\nexec {shlex.join(ask)}\n"


def password_file(environment: str, *, example: bool, keyring: bool = False) -> Path:
    """The file with the vault's password, or the program that prints it; made where it is missing, the operator's own where it is named."""
    if example:
        path = example_password(environment)
    elif keyring:
        path = PASSWORDS / environment
        if path.exists():
            raise Problem(f"{path} says already where the password is", "Make the vault with that, without --keyring, or move it away")
        program = keep_in_keyring(environment)
        private_directory(PASSWORDS)
        write_private(path, program)
        # Ansible runs what may be run, and reads the password from the rest
        path.chmod(0o700)
        return path
    elif named := os.environ.get("ANSIBLE_VAULT_PASSWORD_FILE"):
        return own_password_file(environment, Path(named).expanduser().absolute())
    else:
        private_directory(PASSWORDS)
        path = PASSWORDS / environment
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32) + "\n")
    elif not example:
        own_password_file(environment, path)
    return path


def own_password_file(environment: str, path: Path) -> Path:
    """What the operator has named or put there, where it can be that."""
    if not path.exists():
        raise Problem(f"{path} has to be the vault's password, and is not there", "Make that file, or unset ANSIBLE_VAULT_PASSWORD_FILE")
    if path.is_relative_to(INVENTORIES):
        raise Problem(f"{path.relative_to(ROOT)} is in git, or read as an inventory", f"Have the password in .vault/{environment}")
    if path.parent == PASSWORDS and path.name in set(environments()) - {environment}:
        raise Problem(
            f"ANSIBLE_VAULT_PASSWORD_FILE names the password of {path.name}",
            f"unset ANSIBLE_VAULT_PASSWORD_FILE      # or export ANSIBLE_VAULT_PASSWORD_FILE=.vault/{environment}",
        )
    if path.is_file() and path.read_bytes()[:2] == b"#!" and not os.access(path, os.X_OK):
        raise Problem(f"{path} is a program that may not be run, so its text would be the password", f"chmod +x {path}")
    return path


def make(environment: str, *, example: bool = False, keyring: bool = False) -> tuple[Path, Path]:
    """Write an environment's vault; returns the vault and its password file."""
    if environment not in environments():
        raise Problem(
            f"no environment {environment!r} with a vault",
            f"make secrets ENV=...      # one of: {', '.join(environments())}; the local one's are made by make up",
        )
    vault = vault_file(environment)
    if vault.exists() and not is_example(environment):
        raise Problem(
            f"{vault.relative_to(ROOT)} is there already, and is not the published example: it is not overwritten",
            f"New values for those in use: make rotate ENV={environment}\n"
            f"To change another one: ansible-vault edit --vault-password-file .vault/{environment} {vault.relative_to(ROOT)}",
        )
    password = password_file(environment, example=example, keyring=keyring)
    fresh = fresh_secrets(example=example)
    encrypted = ansible_vault("encrypt", password, "--output", "-", text=fresh)
    # A command may say something else each time
    if ansible_vault("decrypt", password, "--output", "-", text=encrypted) != fresh:
        raise Problem("what was encrypted cannot be read again", f"Does {password} give the same password each time?")
    vault.parent.mkdir(parents=True, exist_ok=True)
    vault.write_text(encrypted, encoding="utf-8")
    if example:
        password.chmod(0o644)
    return vault, password


def rotate(environment: str) -> None:
    """Become the run that changes the secrets of an environment."""
    if environment not in environments():
        raise Problem(f"no environment {environment!r} with a vault", f"make rotate ENV=...      # one of: {', '.join(environments())}")
    if not vault_file(environment).exists() or is_example(environment):
        raise Problem(f"{environment} has no secrets of its own yet", f"make secrets ENV={environment}")
    named = Path(os.environ.get("ANSIBLE_VAULT_PASSWORD_FILE") or PASSWORDS / environment).expanduser().absolute()
    os.environ["ANSIBLE_VAULT_PASSWORD_FILE"] = str(own_password_file(environment, named))
    program = str(Path(sys.executable).parent / "ansible-playbook")
    os.execv(program, [program, "-i", str(INVENTORIES / environment), str(ROOT / "playbooks/rotate_secrets.yml")])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("environment", nargs="?", default="", help="the name of a folder in inventories/")
    parser.add_argument("--example", action="store_true", help="make the published example instead, with its password")
    parser.add_argument("--keyring", action="store_true", help="keep the vault's password in this machine's keyring")
    parser.add_argument("--rotate", action="store_true", help="new values for those in use, by playbooks/rotate_secrets.yml")
    options = parser.parse_args()
    if options.rotate:
        rotate(options.environment)
    vault, password = make(options.environment, example=options.example, keyring=options.keyring)
    shown = password.relative_to(ROOT) if password.is_relative_to(ROOT) else password
    source = "of the keyring, which is asked by" if options.keyring else "from"
    say(f"Fresh secrets in {vault.relative_to(ROOT)}, encrypted with the password {source} {shown}.")
    if not options.example:
        say("Keep a copy of that password where your team keeps its passwords; it is not in git.")
        say(f"Then, as in step 4 of the README: export ANSIBLE_VAULT_PASSWORD_FILE={shown}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
