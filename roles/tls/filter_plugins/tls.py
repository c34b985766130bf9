"""What the role tls must know about names, certificates and keys, read on the controller before a host changes."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import itertools
import re
import typing as t

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

CERTIFICATE_NAME = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]*")
DNS_NAME = re.compile(r"(?:\*\.)?(?!-)[a-zA-Z0-9-]{1,63}(?<!-)(?:\.(?!-)[a-zA-Z0-9-]{1,63}(?<!-))*")

Rule = dict[str, t.Any]


def address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def tls_subject_alt_name(name: str) -> str:
    """The name as community.crypto writes it: DNS:www.example.org, IP:192.0.2.10."""
    return f"IP:{name}" if address(name) else f"DNS:{name}"


def tls_days_left(pem: str) -> int:
    """Days until the first certificate of a text ends; below zero for a text that is no certificate."""
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        return -1
    return (certificate.not_valid_after_utc - now()).days


def tls_crl_days_left(content: str, authority: str) -> int:
    """Days until a revocation list, DER in base64, ends; below zero for what is no list, and for that of another authority."""
    key = x509.load_pem_x509_certificate(authority.encode()).public_key()
    try:
        revoked = x509.load_der_x509_crl(base64.b64decode(content))
    except ValueError:
        return -1
    if not revoked.next_update_utc or not revoked.is_signature_valid(key):  # type: ignore[arg-type]
        return -1
    return (revoked.next_update_utc - now()).days


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def covers(certificate: x509.Certificate, name: str) -> bool:
    """Whether a certificate stands for a name, as clients read it: by its subject alternative names alone."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    wanted = address(name)
    if wanted:
        return wanted in names.get_values_for_type(x509.IPAddress)
    known = {known.lower() for known in names.get_values_for_type(x509.DNSName)}
    _, _, parent = name.lower().partition(".")
    return name.lower() in known or f"*.{parent}" in known


def chain_problem(chain: list[x509.Certificate]) -> str:
    """Why a chain is out of order, in words, or nothing."""
    for below, above in itertools.pairwise(chain):
        try:
            below.verify_directly_issued_by(above)
        except (ValueError, TypeError, InvalidSignature):
            return f"{above.subject.rfc4514_string()} did not sign {below.subject.rfc4514_string()}"
    return ""


def public_bytes(key: t.Any) -> bytes:
    return t.cast(bytes, key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def provided_problems(name: str, wanted: list[str], certificate: str, private_key: str) -> t.Iterator[tuple[str, str, str]]:
    """Option, value fit to be shown, and what is allowed, for each fault of a certificate from the vault."""
    if not certificate:
        yield "certificate", "(not set)", f"the PEM text of certificate {name}, for tls_mode provided"
    if not private_key:
        yield "private_key", "(not set)", f"the PEM text of the key of certificate {name}, for tls_mode provided"
    if not certificate or not private_key:
        return
    chain: list[x509.Certificate] = []
    try:
        chain = x509.load_pem_x509_certificates(certificate.encode())
    except ValueError:
        yield "certificate", "(no certificate)", "PEM text: -----BEGIN CERTIFICATE----- and so on, the host's certificate first"
    key: t.Any = None
    try:
        key = load_pem_private_key(private_key.encode(), password=None)
    except TypeError:
        yield (
            "private_key",
            "(encrypted by a passphrase)",
            "a key without a passphrase (the vault encrypts it): openssl pkey -in KEY -out PLAIN",
        )
    except (ValueError, UnsupportedAlgorithm):
        yield "private_key", "(no private key)", "PEM text: -----BEGIN PRIVATE KEY----- and so on"
    if not chain:
        return
    leaf = chain[0]
    shown = f"{leaf.subject.rfc4514_string()}, valid {leaf.not_valid_before_utc:%Y-%m-%d} to {leaf.not_valid_after_utc:%Y-%m-%d}"
    if key is not None and public_bytes(key.public_key()) != public_bytes(leaf.public_key()):
        yield (
            "private_key",
            shown,
            f"the key of certificate {name}; this one belongs to another (with a chain, the host's certificate stands first)",
        )
    for one in chain:
        if one.not_valid_after_utc < now():
            what = f"{one.subject.rfc4514_string()}, expired on {one.not_valid_after_utc:%Y-%m-%d}"
            yield "certificate", what, "a certificate that has not expired, and its intermediates neither"
    if leaf.not_valid_before_utc > now():
        yield "certificate", shown, "a certificate that is valid already"
    missing = [one for one in wanted if not covers(leaf, one)]
    if missing:
        yield "certificate", shown, f"a certificate for all the names listed beside it; it does not cover {', '.join(missing)}"
    problem = chain_problem(chain)
    if problem:
        yield "certificate", shown, f"the host's certificate first, then each one that signed the one before it; {problem}"


def acme_problems(one: dict[str, t.Any], hook: str) -> t.Iterator[tuple[str, str, str]]:
    """Option, value and what is allowed, for each thing that an ACME server would refuse."""
    by_dns = one.get("challenge") == "dns-01"
    if by_dns and not hook:
        yield "challenge", "dns-01", "http-01, unless tls_acme_dns_hook names a program that makes the records"
    for name in one["names"]:
        if address(name):
            yield "names", name, "DNS names alone for tls_mode acme: its servers sign for no address"
        elif name.startswith("*.") and not by_dns:
            yield "names", name, "a wildcard only with challenge: dns-01 beside it; http-01 proves single names"
        elif "." not in name:
            yield "names", name, "names that are public, such as www.example.org, for tls_mode acme"
    if len(one["names"]) > 100:
        yield "names", str(len(one["names"])), "at most 100 names in one certificate of tls_mode acme: make several"


def tls_certificate_rules(certificates: list[dict[str, t.Any]], mode: str, hook: str = "") -> list[Rule]:
    """Rules for role_variables that the certificates break."""
    found: list[tuple[str, t.Any, str]] = []
    names = [str(one.get("name")) for one in certificates]
    if not certificates:
        found.append(("tls_certificates", "[]", "at least one certificate"))
    for name in sorted({name for name in names if names.count(name) > 1}):
        found.append(("tls_certificates", name, "names that differ: each has its own directory"))
    for index, one in enumerate(certificates):
        at = f"tls_certificates[{index}]"
        if not CERTIFICATE_NAME.fullmatch(names[index]):
            found.append((f"{at}.name", names[index], "letters, digits, dots, dashes and underscores: it becomes a directory"))
        if not one["names"]:
            found.append((f"{at}.names", "[]", "at least one DNS name or IP address"))
        for wrong in (name for name in one["names"] if not address(name) and not DNS_NAME.fullmatch(name)):
            found.append((f"{at}.names", wrong, "a DNS name (without scheme, port or path) or an IP address"))
        if mode == "provided":
            parts = str(one.get("certificate") or ""), str(one.get("private_key") or "")
            found += [
                (f"{at}.{option}", value, allowed) for option, value, allowed in provided_problems(names[index], one["names"], *parts)
            ]
        if mode == "acme":
            found += [(f"{at}.{option}", value, allowed) for option, value, allowed in acme_problems(one, hook)]
    return [{"variable": variable, "that": "false", "value": repr(str(value)), "allowed": allowed} for variable, value, allowed in found]


class FilterModule:
    """The filters of the role tls."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {
            "tls_certificate_rules": tls_certificate_rules,
            "tls_crl_days_left": tls_crl_days_left,
            "tls_days_left": tls_days_left,
            "tls_subject_alt_name": tls_subject_alt_name,
        }
