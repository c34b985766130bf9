#!/usr/bin/python3
"""Certificates from an ACME server: certbot gets them, and what is right is put where services read it.

    groundcrew-acme renew NAME           what a certificate's own unit runs: asks certbot, takes over what is new, has its readers reload
    groundcrew-acme placeholder NAME     a certificate that signs itself, for services to start with
    groundcrew-acme issue NAME...        runs the units of these, side by side, and says as JSON what has changed and what went wrong

Each certificate has a certbot directory of its own, so that none waits for another's; the account is common to all. What is wrong with a
certificate stands in the file `problem` beside it until it is mended.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import grp
import ipaddress
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key

SETTINGS = Path("/etc/groundcrew-acme")
STATE = Path("/var/lib/groundcrew-acme")
FILES = ("privkey.pem", "fullchain.pem")
PLACEHOLDER = "A placeholder that signs itself is in use."
# Nonces get stale, and a server may refuse one for any reason: certbot tries once more, a busy server may want more than that
TRIES = 4


class Trouble(Exception):
    """What went wrong, in words for people."""


class Refused(Trouble):
    """The server did not find what proves a name."""


class Certificate:
    """A certificate as the role describes it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.settings: dict[str, Any] = json.loads((SETTINGS / f"{name}.json").read_text(encoding="utf-8"))
        self.names: list[str] = self.settings["names"]
        self.server: str = self.settings["server"]
        self.target = Path(self.settings["directory"])
        self.state = STATE / name
        self.live = self.state / "config/live" / name

    @property
    def unit(self) -> str:
        return f"groundcrew-acme@{self.name}.service"


def leaf(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def moment(certificate: x509.Certificate, name: str) -> datetime.datetime:
    # Debian 12's cryptography knows no time zones yet
    found: datetime.datetime = getattr(certificate, f"{name}_utc", None) or getattr(certificate, name).replace(tzinfo=datetime.UTC)
    return found


def not_after(certificate: x509.Certificate) -> datetime.datetime:
    return moment(certificate, "not_valid_after")


def not_before(certificate: x509.Certificate) -> datetime.datetime:
    return moment(certificate, "not_valid_before")


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def read_pair(folder: Path) -> tuple[bytes, bytes] | None:
    """The key and the chain in a folder, where both are there."""
    try:
        return (folder / FILES[0]).read_bytes(), (folder / FILES[1]).read_bytes()
    except FileNotFoundError:
        return None


def fault(pair: tuple[bytes, bytes], names: Sequence[str]) -> str:
    """Why a key and a chain may not serve these names, or nothing."""
    try:
        certificate, key = leaf(pair[1]), load_pem_private_key(pair[0], password=None)
    except ValueError as error:
        return f"it cannot be read: {error}"
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        return "its key is another one's"
    if not not_before(certificate) <= now() < not_after(certificate):
        return f"it is valid from {not_before(certificate):%Y-%m-%d %H:%M} to {not_after(certificate):%Y-%m-%d %H:%M} UTC"
    try:
        covered = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        covered = []
    missing = sorted({name.lower() for name in names} - {name.lower() for name in covered})
    return f"it does not stand for {', '.join(missing)}" if missing else ""


def write(path: Path, content: bytes, mode: int, group: str = "") -> None:
    """The whole file or nothing, in its rights from the start."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        if group:
            os.fchown(file.fileno(), -1, grp.getgrnam(group).gr_gid)
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    new.rename(path)


def put(certificate: Certificate, pair: tuple[bytes, bytes]) -> None:
    group = certificate.settings["key_group"]
    write(certificate.target / FILES[0], pair[0], 0o640 if group else 0o600, group)
    write(certificate.target / FILES[1], pair[1], 0o644)


def give_key(certificate: Certificate) -> None:
    """Who may read the key may change while it does not."""
    path, group = certificate.target / FILES[0], certificate.settings["key_group"]
    os.chown(path, -1, grp.getgrnam(group or "root").gr_gid)
    path.chmod(0o640 if group else 0o600)


def placeholder(certificate: Certificate) -> None:
    """A pair that signs itself, for a year: whoever reads it can start."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, certificate.names[0][:64])])
    begin = now() - datetime.timedelta(hours=1)
    made = (
        x509.CertificateBuilder(
            subject, subject, key.public_key(), x509.random_serial_number(), begin, begin + datetime.timedelta(days=365)
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in certificate.names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    certificate.target.mkdir(mode=0o755, parents=True, exist_ok=True)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    put(certificate, (private, made.public_bytes(Encoding.PEM)))
    tell(certificate, f"{PLACEHOLDER} {certificate.server} has not been asked yet.")


def is_placeholder(pem: bytes) -> bool:
    return leaf(pem).issuer == leaf(pem).subject


def tell(certificate: Certificate, problem: str) -> None:
    """Write down what is wrong, beside the certificate, for status and smoke test; nothing where all is well."""
    path = certificate.target / "problem"
    if problem:
        write(path, f"{problem}\n".encode(), 0o644)
    else:
        path.unlink(missing_ok=True)


def refusal(output: str) -> Trouble:
    """What the ACME server or certbot said, without certbot's advice."""
    reports = re.findall(r"Domain: *(\S+)\s+Type: *(\S+)\s+Detail: *((?:.+\n?)+?)(?=\s*\n\s*\n|\s*\n +Domain:|\s*\n\S|\Z)", output)
    if reports:
        return Refused("; ".join(f"{domain}: {kind}: {' '.join(detail.split())}" for domain, kind, detail in reports))
    lines = [line.strip() for line in output.splitlines()]
    chatter = (
        "Saving debug log",
        "Ask for help",
        "See the logfile",
        "Requesting a certificate",
        "Renewing an existing",
        "An unexpected error",
    )
    left = [line for line in lines if line and not line.startswith((*chatter, "- - -", "Traceback", "File "))]
    return Trouble(" ".join(left)[-600:] or "certbot said nothing")


def addresses(certificate: Certificate) -> Iterator[str]:
    """For each name, where it points as seen from here, and the address that this host has towards the server."""
    own = ""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as toward:
        # Sends nothing: it asks the kernel for the way
        toward.connect((urlsplit(certificate.server).hostname or "", 443))
        own = toward.getsockname()[0]
    for name in certificate.names:
        try:
            found = sorted({str(one[4][0]) for one in socket.getaddrinfo(name.removeprefix("*."), 80, type=socket.SOCK_STREAM)})
        except OSError:
            yield f"{name} has no address here"
            continue
        if own not in found and not all(ipaddress.ip_address(one).is_loopback for one in found):
            yield f"{name} points to {', '.join(found)}"
    if own:
        yield f"this host's own address is {own}"


def last_error(certificate: Certificate) -> str:
    """The kind of the server's last error, which certbot writes into its log alone."""
    try:
        log = (certificate.state / "logs/letsencrypt.log").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return next(reversed(re.findall(r"urn:ietf:params:acme:error:(\w+)", log)), "")


def run_certbot(certificate: Certificate, *command: str) -> subprocess.CompletedProcess[str]:
    folders = [f"--{kind}-dir={certificate.state / kind}" for kind in ("config", "work", "logs")]
    fixed = [f"--config={SETTINGS / 'cli.ini'}", f"--server={certificate.server}", "--non-interactive", *folders]
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    if certificate.settings["ca_file"]:
        environment["REQUESTS_CA_BUNDLE"] = certificate.settings["ca_file"]
    for _ in range(TRIES):
        try:
            done = subprocess.run(
                ["certbot", *command, *fixed],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=certificate.settings["timeout"],
            )
        except subprocess.TimeoutExpired as late:
            raise Trouble(f"no end within {late.timeout:.0f} s") from late
        if done.returncode == 0 or last_error(certificate) != "badNonce":
            break
    if done.returncode:
        print(done.stdout, flush=True)
    return done


def ensure_account(certificate: Certificate, lost: Path | None = None) -> Path:
    """The account at the server, another one than that which the server has lost. One unit at a time makes it, for all of them."""
    where = urlsplit(certificate.server)
    common = STATE / "accounts"
    common.mkdir(mode=0o700, exist_ok=True)
    (certificate.state / "config").mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (certificate.state / "config/accounts").symlink_to("../../accounts")
    folder = common / where.netloc / where.path.lstrip("/")
    with (STATE / "accounts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if lost:
            shutil.rmtree(lost, ignore_errors=True)
        if not list(folder.glob("*/regr.json")) and (done := run_certbot(certificate, "register")).returncode:
            raise refusal(done.stdout)
        return min(folder.glob("*/regr.json")).parent


def ask(certificate: Certificate) -> None:
    """Have certbot decide whether a new certificate is due, and get it."""
    wanted = {"server": certificate.server, "key_type": certificate.settings["key_type"]}
    asked = certificate.state / "asked.json"
    known = json.loads(asked.read_text(encoding="utf-8")) if asked.exists() else wanted
    # Of another server or key, certbot keeps what it has until its end
    command = ["certonly", "--keep-until-expiring" if known == wanted else "--force-renewal", "--renew-with-new-domains"]
    command += [f"--cert-name={certificate.name}", f"--key-type={wanted['key_type']}", *(f"--domain={name}" for name in certificate.names)]
    if certificate.settings["challenge"] == "dns-01":
        hook = certificate.settings["hook"]
        command += ["--manual", "--preferred-challenges=dns", f"--manual-auth-hook={hook} add", f"--manual-cleanup-hook={hook} remove"]
    else:
        command += ["--webroot", f"--webroot-path={certificate.settings['webroot']}"]
    # By its name: where there is none for a moment, since another unit replaces it, certbot would make one of its own
    account = ensure_account(certificate)
    done = run_certbot(certificate, *command, f"--account={account.name}")
    if done.returncode and (last_error(certificate) == "accountDoesNotExist" or not account.exists()):
        # A server that was set up anew
        account = ensure_account(certificate, lost=account)
        done = run_certbot(certificate, *command, f"--account={account.name}")
    if done.returncode:
        raise refusal(done.stdout)
    write(asked, json.dumps(wanted).encode(), 0o600)


def reload(certificate: Certificate) -> None:
    """Have each service that runs read the files again. It refuses a broken configuration, and goes on with what it has."""
    for unit in certificate.settings["units"]:
        if subprocess.run(["systemctl", "--quiet", "is-active", unit], check=False).returncode:
            # It reads them at its start
            continue
        done = subprocess.run(["systemctl", "reload", unit], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Trouble(f"{unit} refuses to reload, so the certificate before stays (journalctl -u {unit}): {done.stderr.strip()}")


def take_over(certificate: Certificate) -> None:
    """Put what certbot has where services read it, if it is right, is another one, and they take it."""
    new, present = read_pair(certificate.live), read_pair(certificate.target)
    if new is None:
        return
    if new == present:
        give_key(certificate)
        return
    if problem := fault(new, certificate.names):
        raise Trouble(f"the certificate that certbot has may not serve: {problem}")
    put(certificate, new)
    try:
        reload(certificate)
    except Trouble:
        if present:
            put(certificate, present)
        raise
    print(f"A new certificate serves until {not_after(leaf(new[1])):%Y-%m-%d %H:%M} UTC")


def watch(certificate: Certificate) -> None:
    """Fail while the certificate in use nears its end, whatever certbot says."""
    present = read_pair(certificate.target)
    if present is None:
        raise Trouble("there is none")
    served = leaf(present[1])
    left, life = not_after(served) - now(), not_after(served) - not_before(served)
    if left < min(datetime.timedelta(days=certificate.settings["warn_days"]), life / 4):
        raise Trouble(f"it ends at {not_after(served):%Y-%m-%d %H:%M} UTC, and was not renewed")


def renew(certificate: Certificate) -> int:
    troubles: list[str] = []
    hint = ""
    for step in (ask, take_over, watch):
        try:
            step(certificate)
        except Trouble as trouble:
            troubles.append(str(trouble))
            if isinstance(trouble, Refused) and certificate.settings["challenge"] == "http-01":
                hint = f" Names: {'; '.join(addresses(certificate))}."
        except Exception as error:
            # The steps after it can still serve what is there
            troubles.append(f"{step.__name__}: {type(error).__name__}: {error}")
    if not troubles:
        tell(certificate, "")
        return 0
    present = read_pair(certificate.target)
    if present and is_placeholder(present[1]):
        in_use = PLACEHOLDER
    elif present and read_pair(certificate.live) is None:
        in_use = "As a placeholder, the certificate from before tls_mode acme is in use."
    else:
        in_use = "The certificate before is in use."
    why = " ".join("; ".join(troubles).split()).rstrip(".")
    said = f"{in_use} No new one for {', '.join(certificate.names)} from {certificate.server}: {why}.{hint}"
    tell(certificate, said)
    print(said, file=sys.stderr)
    return 1


def issue(certificates: list[Certificate]) -> int:
    before = {one.name: read_pair(one.target) for one in certificates}
    units = [one.unit for one in certificates]
    asked = [
        subprocess.run(["systemctl", "is-active", unit], stdout=subprocess.PIPE, text=True, check=False).stdout.strip() for unit in units
    ]
    # What its timer started a moment ago may have come before the web server knew the names: again, after its end
    for some in (units, [unit for unit, state in zip(units, asked, strict=True) if state == "activating"]):
        if some:
            subprocess.run(["systemctl", "start", *some], capture_output=True, check=False)
    problems = {}
    for one in certificates:
        path = one.target / "problem"
        if path.exists():
            problems[one.name] = path.read_text(encoding="utf-8").strip()
        elif subprocess.run(["systemctl", "--quiet", "is-failed", one.unit], check=False).returncode == 0:
            problems[one.name] = f"{one.unit} failed: journalctl -u {one.unit}"
    changed = [one.name for one in certificates if read_pair(one.target) != before[one.name]]
    print(json.dumps({"changed": changed, "problems": problems}))
    return 0


def main() -> int:
    command, *names = sys.argv[1:] or [""]
    certificates = [Certificate(name) for name in names]
    if command == "issue":
        return issue(certificates)
    if command in ("renew", "placeholder") and len(certificates) == 1:
        if command == "renew":
            return renew(certificates[0])
        placeholder(certificates[0])
        return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
