"""Record the SSH host keys of a host that known_hosts does not know yet: FILE ADDRESS PORT FRESH_PORT [FINGERPRINT...]

With fingerprints, only keys that bear one of them are recorded; without, the keys that the host shows now are believed from then on.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path


def run(*command: str, text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout


def place(address: str, port: str) -> str:
    return address if port == "22" else f"[{address}]:{port}"


def fingerprint(key: str) -> str:
    """SHA256:... of a line with a public key."""
    return run("ssh-keygen", "-l", "-f", "-", text=key).split()[1]


def main() -> int:
    file, address, port, fresh_port, *fingerprints = sys.argv[1:]
    known = Path(file)
    names = [place(address, one) for one in dict.fromkeys((port, fresh_port))]
    if known.exists() and any(run("ssh-keygen", "-F", name, "-f", file) for name in names):
        return 0
    for one in dict.fromkeys((port, fresh_port)):
        keys = [
            line.split(" ", 1)[1] for line in run("ssh-keyscan", "-T", "10", "-p", one, address).splitlines() if line[:1] not in ("#", "")
        ]
        if keys:
            break
    else:
        print(
            f"{address} shows no host key at port {' or '.join(dict.fromkeys((port, fresh_port)))}: is it up, and the port open?",
            file=sys.stderr,
        )
        return 1
    shown = {key: fingerprint(key) for key in keys}
    good = [key for key in keys if not fingerprints or shown[key] in fingerprints]
    if not good:
        print(f"{address} shows other host keys than bootstrap_host_key_fingerprints names: {', '.join(shown.values())}", file=sys.stderr)
        return 1
    known.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with known.open("a", encoding="utf-8") as out:
        # Other hosts of this run are recorded at the same time
        fcntl.flock(out, fcntl.LOCK_EX)
        # By both ports: sshd may move from the one to the other
        out.write("".join(f"{','.join(names)} {key}\n" for key in good))
    print(f"recorded {', '.join(shown[key] for key in good)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
