"""What the role administrators must know about people and their keys, read on the controller before a host changes."""

from __future__ import annotations

import base64
import binascii
import re
import typing as t

NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
KEY_TYPES = ("ssh-ed25519", "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com", "ssh-rsa")
KEY = re.compile(r"(?:^|\s)((?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+)\s+([A-Za-z0-9+/=]+)(?:\s|$)")
SHORTEST_RSA = 3072

Rule = dict[str, t.Any]


def fields(blob: bytes) -> list[bytes]:
    """The parts of a public key, each of which begins with its length; raises ValueError where they do not come out even."""
    found = []
    while blob:
        end = 4 + int.from_bytes(blob[:4], "big")
        if len(blob) < max(end, 4):
            raise ValueError("cut off")
        found.append(blob[4:end])
        blob = blob[end:]
    return found


def key_problem(line: str) -> str:
    """Why a public key is not taken, in words, or nothing."""
    if "PRIVATE KEY" in line:
        return "the public key (the file that ends in .pub); this is the private one, which belongs nowhere but on its owner's machine"
    match = KEY.search(line)
    if "\n" in line.strip() or not match:
        return "a public key in one line, such as ssh-ed25519 AAAA... name"
    kind, text = match.groups()
    if kind not in KEY_TYPES:
        return f"a key of type {', '.join(KEY_TYPES)}, which role ssh lets in; make one: ssh-keygen -t ed25519"
    try:
        parts = fields(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error):
        parts = []
    if len(parts) < 2 or parts[0] != kind.encode():
        return "a whole public key; this one is cut off or mistyped"
    if kind == "ssh-rsa" and (bits := int.from_bytes(parts[2], "big").bit_length() if len(parts) == 3 else 0) < SHORTEST_RSA:
        return f"an RSA key of at least {SHORTEST_RSA} bits, not {bits}; or make one: ssh-keygen -t ed25519"
    return ""


def problems(person: dict[str, t.Any]) -> t.Iterator[tuple[str, str, str]]:
    """Option, value fit to be shown, and what is allowed, for each fault of a person."""
    name = str(person["name"])
    if not NAME.fullmatch(name) or name == "root":
        yield "name", name, "lower-case letters, digits, dash and underscore, at most 32; not root"
    if person.get("state") == "absent":
        return
    keys = person.get("keys") or []
    if not keys:
        yield "keys", "[]", "at least one public key: without one, nobody could log in as this user"
    for key in map(str, keys):
        if problem := key_problem(key):
            yield "keys", "(a private key)" if "PRIVATE KEY" in key else key[:60], problem
    if person.get("sudo_password") and not person.get("password_hash"):
        yield "sudo_password", "true", "true beside a password_hash, which sudo can compare with"
    if person.get("password_hash") and not re.fullmatch(r"\$[a-z0-9]+\$[^:\s]+", str(person["password_hash"])):
        yield "password_hash", "********", "a hash such as $6$..., from: openssl passwd -6 (no password in the clear)"
    for group in person.get("groups") or []:
        if not NAME.fullmatch(str(group)):
            yield "groups", str(group), "lower-case letters, digits, dash and underscore"
    if not re.fullmatch(r"/[A-Za-z0-9/._-]+", str(person.get("shell") or "/bin/bash")):
        yield "shell", str(person["shell"]), "an absolute path on the host"


def administrators_rules(people: list[dict[str, t.Any]]) -> list[Rule]:
    """Rules for role_variables that the people break."""
    names = [str(person["name"]) for person in people]
    found = [("administrators_people", name, "each name once") for name in sorted({one for one in names if names.count(one) > 1})]
    for index, person in enumerate(people):
        found += [(f"administrators_people[{index}].{option}", value, allowed) for option, value, allowed in problems(person)]
    return [{"variable": variable, "that": "false", "value": repr(value), "allowed": allowed} for variable, value, allowed in found]


class FilterModule:
    """The filters of the role administrators."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"administrators_rules": administrators_rules}
