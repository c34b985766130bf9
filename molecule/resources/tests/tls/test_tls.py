"""Certificates that the role tls issues, as clients check them, and when it issues new ones."""

from __future__ import annotations

import datetime
import os
import pathlib
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.verification import PolicyBuilder, Store

CA = pathlib.Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", "")) / "ca"
CERTIFICATE = "/etc/ssl/groundcrew/default/fullchain.pem"
KEY = "/etc/ssl/groundcrew/default/privkey.pem"
NAMES = ["www.test.example", "*.apps.test.example", "192.0.2.10", "2001:db8::10"]
Converge = Callable[..., Any]


def leaf(host: Any, path: str = CERTIFICATE) -> x509.Certificate:
    return x509.load_pem_x509_certificate(host.file(path).content)


@pytest.mark.parametrize("name", ["www.test.example", "one.apps.test.example"])
def test_clients_of_the_authority_trust_the_certificate(host: Any, name: str) -> None:
    """Catches wrong extensions, names or dates: checked as a browser does."""
    store = Store([x509.load_pem_x509_certificate((CA / "ca.pem").read_bytes())])
    PolicyBuilder().store(store).build_server_verifier(x509.DNSName(name)).verify(leaf(host), [])


def test_the_revocation_list_is_the_authoritys_and_lasts(host: Any) -> None:
    """Catches a list that clients refuse: where the certificate does not say, of another authority, or near its end."""
    points = leaf(host).extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert [name.value for point in points for name in point.full_name or []] == ["http://www.test.example/ca.crl"]
    revoked = x509.load_der_x509_crl(host.file("/etc/ssl/groundcrew/ca.crl").content)
    authority = x509.load_pem_x509_certificate((CA / "ca.pem").read_bytes())
    assert revoked.issuer == authority.subject
    assert revoked.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    assert (revoked.next_update_utc or datetime.datetime.min.replace(tzinfo=datetime.UTC)) > leaf(
        host
    ).not_valid_after_utc - datetime.timedelta(days=1)


def test_addresses_are_covered(host: Any) -> None:
    """Catches an address written as a DNS name, which clients pass over."""
    names = leaf(host).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == NAMES[2:]


def test_a_certificate_lasts_no_longer_than_clients_accept(host: Any) -> None:
    """Catches a life that browsers refuse."""
    assert leaf(host).not_valid_after_utc - leaf(host).not_valid_before_utc < datetime.timedelta(days=366)


def test_only_root_and_a_named_group_read_keys(host: Any) -> None:
    """Catches a key that the world reads."""
    with host.sudo():
        key, shared = host.file(KEY), host.file("/etc/ssl/groundcrew/mail/privkey.pem")
        assert (key.mode, key.user, key.group) == (0o600, "root", "root")
        assert (shared.mode, shared.user, shared.group) == (0o640, "root", "www-data")
    assert (CA / "ca.key").stat().st_mode & 0o777 == 0o600


def test_the_authority_stays_on_the_controller(host: Any) -> None:
    """Catches the authority's key on a host."""
    with host.sudo():
        ca_key = (CA / "ca.key").read_text().splitlines()[1]
        assert host.run("grep -rlF -- %s /etc /root /tmp /var/tmp", ca_key).rc == 1


def pair(names: list[str], days: int = 90, start: int = -1) -> tuple[str, str]:
    """A certificate that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=start))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False)
        .sign(key, SHA256())
    )
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return made.public_bytes(Encoding.PEM).decode(), text


def test_a_pair_from_the_vault_lands(host: Any, converge: Converge) -> None:
    """Catches a provided certificate that is altered on its way, and a key in the output."""
    certificate, key = pair(NAMES[:1])
    given = {
        "tls_mode": "provided",
        "tls_certificates": [{"name": "default", "names": NAMES[:1], "certificate": certificate, "private_key": key}],
    }
    result = converge("--diff", "-vv", **given)
    assert result.returncode == 0, result.stdout
    assert key.splitlines()[1] not in (result.stdout + result.stderr)
    with host.sudo():
        assert host.file(CERTIFICATE).content_string == certificate
        assert host.file(KEY).content_string == key
        assert host.file(KEY).mode == 0o600
    assert converge(**given).settled


def test_a_certificate_is_renewed_before_its_end(host: Any, converge: Converge) -> None:
    """Catches a way back from a provided pair that is shut, a certificate left to expire, and a key made anew with it."""
    assert converge().returncode == 0
    with host.sudo():
        before, key = leaf(host), host.file(KEY).sha256sum
    before.verify_directly_issued_by(x509.load_pem_x509_certificate((CA / "ca.pem").read_bytes()))
    assert converge(tls_renew_before_days=364).settled, "a day is left before the time to renew"
    assert converge(tls_renew_before_days=365, tls_leaf_days=397).returncode == 0
    with host.sudo():
        assert leaf(host).serial_number != before.serial_number
        assert host.file(KEY).sha256sum == key


@pytest.mark.one_release
def test_bad_pairs_from_the_vault_are_refused(host: Any, converge: Converge) -> None:
    """Catches a mismatched, expired, foreign or missing certificate that reaches a host, and a key in the output."""
    names = ["www.test.example"]
    good, other, old, early = pair(names), pair(names), pair(names, days=-1, start=-10), pair(names, start=1)
    certificates = [
        {"name": "mismatched", "names": names, "certificate": good[0], "private_key": other[1]},
        {"name": "expired", "names": names, "certificate": old[0], "private_key": old[1]},
        {"name": "early", "names": names, "certificate": early[0], "private_key": early[1]},
        {"name": "foreign", "names": ["www.test.example", "x.test.example"], "certificate": good[0], "private_key": good[1]},
        {"name": "disordered", "names": names, "certificate": good[0] + other[0] + old[0], "private_key": good[1]},
        {"name": "garbage", "names": names, "certificate": "no certificate", "private_key": "no private key at all"},
        {"name": "missing", "names": names},
    ]
    result = converge(tls_mode="provided", tls_certificates=certificates)
    output = result.stdout + result.stderr
    assert result.returncode == 2
    for said in (
        "the key of certificate mismatched",
        "expired on",
        "valid already",
        "does not cover x.test.example",
        "did not sign",
        "-----BEGIN CERTIFICATE-----",
        "the PEM text of certificate missing",
    ):
        assert said in output, said
    for _, key in (good, other, old, early):
        assert key.splitlines()[1] not in output
    assert not host.file("/etc/ssl/groundcrew/mismatched").exists


@pytest.mark.one_release
def test_a_new_name_brings_a_new_certificate(host: Any, converge: Converge) -> None:
    """Catches a certificate that keeps its old names, and a check run that hides the change or makes it."""
    before = leaf(host).serial_number
    other = {"tls_certificates": [{"name": "default", "names": [*NAMES, "new.test.example"]}]}
    checked = converge("--check", **other)
    assert "changed=1" in checked.stdout, checked.stdout
    assert leaf(host).serial_number == before
    assert converge(**other).returncode == 0
    names = leaf(host).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "new.test.example" in names.get_values_for_type(x509.DNSName)


@pytest.mark.one_release
def test_another_authority_brings_a_new_certificate(host: Any, converge: Converge, tmp_path: pathlib.Path) -> None:
    """Catches a certificate of an authority that is gone, and an authority made anew because its key is encrypted, as in a vault."""
    given, ca_key, password = {"tls_ca_directory": str(tmp_path / "ca")}, tmp_path / "ca/ca.key", tmp_path / "password"
    assert converge(**given).returncode == 0
    ca, first = x509.load_pem_x509_certificate((tmp_path / "ca/ca.pem").read_bytes()), leaf(host)
    first.verify_directly_issued_by(ca)
    password.write_text("a password for this test\n")
    subprocess.run(["ansible-vault", "encrypt", "--vault-password-file", password, ca_key], check=True, capture_output=True)
    encrypted = ca_key.read_bytes()
    result = converge("--vault-password-file", str(password), **given, tls_renew_before_days=366, tls_leaf_days=397)
    assert result.returncode == 0, result.stdout
    assert ca_key.read_bytes() == encrypted
    assert leaf(host).serial_number != first.serial_number
    leaf(host).verify_directly_issued_by(ca)
    assert converge().returncode == 0
