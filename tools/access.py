"""SSH access to the local host with a key made for it, and the secrets of the local environment; run it to log in."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

from docker.models.containers import Container

from tools import host, packages
from tools.console import LOCAL, Problem, run_command

USER = "admin"
SSH_DIRECTORY = LOCAL / "ssh"
KEY = SSH_DIRECTORY / "id_ed25519"
KNOWN_HOSTS = SSH_DIRECTORY / "known_hosts"
SECRETS_DIRECTORY = LOCAL / "secrets"
SECRETS = ("postgresql_app_password", "redis_broker_password", "redis_cache_password", "redis_replication_password", "app_secret_key")

# A sudo user as cloud images have it; written only where it is not so already
ADMIT = """
set -eu
for program in sudo sshd; do
  command -v "$program" >/dev/null || { echo "the image has no $program"; exit 3; }
done
id "$ADMIN" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$ADMIN"
home=$(getent passwd "$ADMIN" | cut -d: -f6)
write() {
  [ "$(cat "$1" 2>/dev/null)" = "$2" ] || { printf '%s\\n' "$2" > "$1"; chmod "$3" "$1"; chown "$4" "$1"; }
}
[ -d "$home/.ssh" ] || install -d -m 0700 -o "$ADMIN" -g "$ADMIN" "$home/.ssh"
write "$home/.ssh/authorized_keys" "$PUBLIC_KEY" 0600 "$ADMIN:$ADMIN"
write "/etc/sudoers.d/90-$ADMIN" "$ADMIN ALL=(ALL:ALL) NOPASSWD: ALL" 0440 root:root
"""


def private_directory(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads, at no moment otherwise."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(text)


def make_secrets() -> int:
    """Make the secrets that are missing; returns how many were made."""
    private_directory(SECRETS_DIRECTORY)
    made = 0
    for name in SECRETS:
        path = SECRETS_DIRECTORY / name
        if not path.exists() or not path.read_text(encoding="utf-8").strip():
            write_private(path, secrets.token_urlsafe(32) + "\n")
            made += 1
    return made


def make_key() -> bool:
    """Make the key pair once; returns whether it was made now."""
    packages.need("ssh", ["openssh-client"])
    private_directory(SSH_DIRECTORY)
    if KEY.exists() and KEY.with_suffix(".pub").exists():
        return False
    KEY.unlink(missing_ok=True)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "groundcrew local", "-f", str(KEY)],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return True


def known_hosts_lines(public_keys: str, address: str, port: int) -> str:
    """The known_hosts entries for the host keys that the host itself has shown."""
    place = address if port == 22 else f"[{address}]:{port}"
    keys = [line.split()[:2] for line in public_keys.splitlines() if line.strip()]
    return "".join(f"{place} {kind} {key}\n" for kind, key in sorted(keys))


def admit(container: Container, address: str, port: int) -> str:
    """Let the key in; returns the known_hosts entries of the host's real keys: read in the host, not believed from the network."""
    code, output = host.run_in(container, ADMIT, {"ADMIN": USER, "PUBLIC_KEY": KEY.with_suffix(".pub").read_text(encoding="utf-8").strip()})
    if code:
        raise Problem(
            f"{container.name} cannot be prepared for SSH: {output}",
            "GROUNDCREW_IMAGE has to name an image with systemd, sshd, sudo and Python",
        )
    code, keys = host.run_in(container, "cat /etc/ssh/ssh_host_*_key.pub")
    if code:
        raise Problem(f"{container.name} has no SSH host keys", f"docker exec {container.name} journalctl -u ssh")
    return known_hosts_lines(keys, address, port)


def know(lines: str) -> None:
    """Record the keys of the hosts that are there now."""
    if not KNOWN_HOSTS.exists() or KNOWN_HOSTS.read_text(encoding="utf-8") != lines:
        write_private(KNOWN_HOSTS, lines)


def ssh_command(port: int, base: Path) -> list[str]:
    """The plain command that logs in, with paths as seen from a folder."""
    key, known = (os.path.relpath(path, base) for path in (KEY, KNOWN_HOSTS))
    return [
        *("ssh", "-i", key, "-o", f"UserKnownHostsFile={known}", "-o", "IdentitiesOnly=yes"),
        *("-p", str(port), f"{USER}@127.0.0.1"),
    ]


def check_login(port: int) -> None:
    """Log in once, with strict host key checking, and become root."""
    command = [*ssh_command(port, Path.cwd()), "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "sudo -n true"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise Problem(f"logging in to the host failed: {done.stderr.strip()}", f"Try it by hand: {' '.join(command)}")


def main() -> int:
    from tools.up import ports

    if not KEY.exists():
        raise Problem("there is no local host", "make up")
    command = [*ssh_command(ports()[22], Path.cwd()), *sys.argv[1:]]
    code = subprocess.call(command)
    if code == 255:
        raise Problem(
            "ssh could not log in",
            "export GROUNDCREW_SSH_PORT=...      # as when the host was started\nmake up      # where it does not run",
            255,
        )
    return code


if __name__ == "__main__":
    sys.exit(run_command(main))
