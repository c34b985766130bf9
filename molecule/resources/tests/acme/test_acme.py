"""Certificates that a real ACME server signs, as clients of the sites see them: issued, renewed, refused, and in its absence."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import ssl
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import testinfra
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tools.load import Load, Request, summary

testinfra_hosts = ["ansible://web"]

EPHEMERAL = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", ""))
CA = EPHEMERAL / "ca/ca.pem"
STATE = "/var/lib/groundcrew-acme"
TLS = "/etc/ssl/groundcrew"
WEB = "playbooks/web.yml"
TOKEN = "bVz9QfR2hKx7Lw3M"
PLAIN = 15000
Converge = Callable[..., Any]
Eventually = Callable[..., Any]
Exposure = Callable[[str], float]


@dataclass(frozen=True)
class Site:
    """The host under test as its visitors reach it."""

    host: Any
    address: str
    domain: str
    # The host's own ACME server, that of the short certificates, and its management's port
    server: str

    @property
    def short(self) -> int:
        return 15001 if self.server == "debian12" else 15002

    def served(self, name: str = "", roots: Path | None = None) -> x509.Certificate:
        """The certificate that a visitor gets, checked where the roots are given."""
        context = ssl.create_default_context(cafile=str(roots or CA))
        if not roots:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        name = name or self.domain
        with socket.create_connection((self.address, 443), timeout=20) as raw, context.wrap_socket(raw, server_hostname=name) as tls:
            return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")

    def problem(self, certificate: str = "default") -> str:
        file = self.host.file(f"{TLS}/{certificate}/problem")
        return str(file.content_string) if file.exists else ""

    def load(self, *roots: Path) -> Load:
        bundle = EPHEMERAL / f"bundle-{self.domain}.pem"
        bundle.write_text("".join(root.read_text() for root in roots))
        return Load(f"https://{self.domain}", [Request("GET", "/hello")], 20, bundle, self.address, threads=8)


@contextlib.contextmanager
def steady(load: Load) -> Iterator[None]:
    """Visitors come all the while, and none is turned away. A reload closes connections that are kept alive: those count apart."""
    load.start()
    try:
        yield
    finally:
        answers = load.stop()
    new = [answer for answer in answers if not answer.kept_alive]
    kept = [answer for answer in answers if answer.kept_alive]
    print("new connections:", summary(new), "kept alive:", summary(kept))
    assert len(new) > 20
    assert all(answer.good for answer in new), summary(new)
    # Before it has answered anything: a client asks again by itself
    assert all(answer.good or answer.error.startswith(("RemoteDisconnected", "BrokenPipe", "ConnectionReset")) for answer in kept), summary(
        kept
    )


@pytest.fixture(scope="module")
def authority() -> Any:
    return testinfra.get_host("ansible://authority", ansible_inventory=os.environ["MOLECULE_INVENTORY_FILE"], sudo=True)


@pytest.fixture(scope="module")
def call(authority: Any) -> Callable[..., str]:
    """Return a function that asks the ACME server's management, or its DNS."""
    address = authority.ansible.get_variables()["ansible_host"]

    def ask(port: int, path: str, **body: Any) -> str:
        context = ssl.create_default_context(cafile=str(CA))
        # By its address: the controller has no name for it
        context.check_hostname = False
        url = f"{'http' if port == 8055 else 'https'}://{address}:{port}/{path}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        with opener.open(url, json.dumps(body).encode() if body else None, timeout=20) as answer:
            return str(answer.read().decode())

    return ask


@pytest.fixture
def root(site: Site, call: Callable[..., str]) -> Callable[[int], Path]:
    """Return a function that fetches a server's root certificate, which is another one after each of its starts."""

    def fetch(port: int) -> Path:
        # Both hosts are asked at a time
        path = EPHEMERAL / f"root-{port}-{site.server}.pem"
        path.write_text(call(port, "roots/0"))
        return path

    return fetch


@pytest.fixture(scope="module")
def site(host: Any, address: str) -> Site:
    name = host.ansible.get_variables()["inventory_hostname"]
    return Site(host, address, f"{name}.test.example", name)


def certificates(site: Site) -> list[dict[str, Any]]:
    return [
        {"name": "default", "names": [f"www.{site.domain}", site.domain]},
        {"name": "second", "names": [f"second.{site.domain}"]},
        {"name": "elsewhere", "names": [f"elsewhere.{site.domain}"]},
        {"name": "impostor", "names": [f"impostor.{site.domain}"]},
        {"name": "wild", "names": [f"*.{site.domain}"], "challenge": "dns-01"},
    ]


def sites(site: Site) -> list[dict[str, Any]]:
    return [
        {
            "name": one["name"],
            # The controller has no names for the sites: it reaches one by the address
            "server_names": one["names"] + ([site.address] if one["name"] == "elsewhere" else []),
            "certificate_file": f"{TLS}/{one['name']}/fullchain.pem",
            "certificate_key_file": f"{TLS}/{one['name']}/privkey.pem",
            "extra": 'location = /hello { return 200 "hello\\n"; }',
        }
        for one in certificates(site)
        if "challenge" not in one
    ]


@dataclass(frozen=True)
class Grown:
    """The run that brought more sites, another server, an account bound to another, and a timer that runs all the time."""

    output: str
    returncode: int
    options: dict[str, Any]


@pytest.fixture(scope="module")
def grown(site: Site, converge: Converge, call: Callable[..., str], authority: Any) -> Grown:
    # A name that leads to a host with no web server, and one that leads to a server that answers the challenge wrongly
    call(8055, "add-a", host=f"elsewhere.{site.domain}.", addresses=["127.0.0.2"])
    call(8055, "add-a", host=f"impostor.{site.domain}.", addresses=[authority.ansible.get_variables()["ansible_host"]])
    options = {
        "tls_acme_directory_url": f"https://acme.test.example:{site.short - 1000}/dir",
        "tls_acme_eab": {"kid": "kid-1", "hmac_key": (EPHEMERAL / "mac-key").read_text()},
        "tls_acme_calendar": "*-*-* *:*:0/30",
        "tls_acme_spread_seconds": 0,
        "tls_acme_dns_hook": str(Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / "molecule/acme/dns-hook.py"),
        "tls_acme_dns_secret_environment": {"DNS_API_TOKEN": TOKEN},
        "tls_certificates": certificates(site),
        "nginx_sites": sites(site),
    }
    done = converge("--diff", "-vv", playbook=WEB, **options)
    return Grown(done.stdout + done.stderr, done.returncode, options)


@pytest.mark.usefixtures("as_root")
def test_the_first_run_ends_with_a_certificate(site: Site, root: Callable[[int], Path]) -> None:
    """Catches a first run that leaves its placeholder, a name left out, a key that others read, and an RSA key."""
    trusted = root(PLAIN)
    for name in (site.domain, f"www.{site.domain}"):
        assert isinstance(site.served(name, trusted).public_key(), ec.EllipticCurvePublicKey)
    key = site.host.file(f"{TLS}/default/privkey.pem")
    assert (key.mode, key.user, key.group) == (0o640, "root", "www-data")
    assert not site.problem()
    assert site.host.service("groundcrew-acme@default.timer").is_enabled


def test_its_unit_is_sandboxed(exposure: Exposure) -> None:
    """Catches a renewal that could do to the host what it has no need to."""
    assert exposure("groundcrew-acme@default.service") <= 2.0


@pytest.mark.usefixtures("as_root")
def test_another_site_gets_its_certificate_beside_one_that_cannot(
    site: Site, grown: Grown, eventually: Eventually, root: Callable[[int], Path]
) -> None:
    """Catches a name that points elsewhere and ends the run, hides why, leaves its site without a certificate, or keeps others from theirs."""
    assert grown.returncode == 0, grown.output
    for name in (site.domain, f"second.{site.domain}"):
        site.served(name, root(site.short))
    said = re.sub(r"\s+", " ", grown.output)
    for name, why in (
        ("elsewhere", "connection: "),
        ("impostor", "unauthorized: The key authorization file from the server did not match "),
    ):
        placeholder = site.served(f"{name}.{site.domain}")
        assert placeholder.issuer == placeholder.subject
        assert re.search(rf"WARNING: certificate {name} of .* A placeholder .* {name}\.{site.domain}: {why}", said), said[
            said.find("WARNING: certificate") :
        ]
        # Between two of its tries
        eventually(lambda unit=f"groundcrew-acme@{name}": site.host.run(f"systemctl is-failed {unit}").stdout.strip() == "failed")


@pytest.mark.one_release
def test_the_smoke_test_says_why_a_certificate_cannot_be_checked(site: Site, grown: Grown, converge: Converge) -> None:
    """Catches a first run that ends with an obscure failure of TLS, or one that is quiet about a placeholder."""
    asked = {
        "smoke_url": f"https://{site.address}",
        "smoke_page_path": "/hello",
        "smoke_ready_path": "",
        "smoke_task_path": "",
        "smoke_units": [],
    }
    done = converge(playbook="playbooks/smoke.yml", smoke_certificate_problem_file=f"{TLS}/elsewhere/problem", **asked, **grown.options)
    assert done.returncode == 0, done.stdout
    assert "works, but for its certificate. A placeholder" in re.sub(r"\s+", " ", done.stdout)
    checked = converge(playbook="playbooks/smoke.yml", smoke_certificate_problem_file="", smoke_ready_timeout=2, **asked, **grown.options)
    assert checked.returncode != 0, "a certificate that signs itself is checked where nothing is known to be wrong"


@pytest.mark.usefixtures("as_root")
def test_a_wildcard_is_proved_by_the_hook(site: Site, grown: Grown) -> None:
    """Catches a hook that is not run, lacks its token, or is run as a web server's challenge."""
    names = x509.load_pem_x509_certificate(site.host.file(f"{TLS}/wild/fullchain.pem").content)
    assert names.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName) == [
        f"*.{site.domain}"
    ]
    assert not site.problem("wild")


@pytest.mark.usefixtures("as_root")
def test_secrets_stay_where_they_are_needed(site: Site, grown: Grown) -> None:
    """Catches the account's binding key, the hook's token or a private key in Ansible's output, the journal or certbot's logs."""
    keys = [site.host.file(f"{TLS}/{one}/privkey.pem").content_string.splitlines()[1] for one in ("default", "wild")]
    journal = site.host.check_output("journalctl --no-pager")
    for secret in (TOKEN, grown.options["tls_acme_eab"]["hmac_key"], *keys):
        assert secret not in grown.output
        assert secret not in journal
        # A pattern that finds it and is another text: sudo logs what it runs
        found = site.host.run("grep -rl -- %s /etc /var /run/systemd /usr/local", f"{secret[:-1]}[{secret[-1]}]").stdout.split()
        assert all(path.startswith(("/etc/groundcrew-acme/", f"{TLS}/", f"{STATE}/")) and "/logs/" not in path for path in found), found
        assert {site.host.file(path).mode & 0o007 for path in found} == {0}


@pytest.mark.usefixtures("as_root")
def test_the_timer_renews_while_visitors_come(site: Site, grown: Grown, eventually: Eventually, root: Callable[[int], Path]) -> None:
    """Catches a renewal that waits for a person, does not reach visitors, gives up at a refused nonce, or fails a request."""
    before = site.served().serial_number
    visitors = site.load(root(site.short))
    with steady(visitors):
        # Debian 12's certbot finds four minutes due at once; Debian 13's waits for half of them
        eventually(lambda: site.served().serial_number != before, within=240)
        # Also where that was a moment after they came
        eventually(lambda: sum(not answer.kept_alive for answer in list(visitors.answers)) > 40)


@pytest.mark.usefixtures("as_root")
def test_a_name_that_is_put_right_heals_by_itself(
    site: Site, grown: Grown, eventually: Eventually, call: Callable[..., str], root: Callable[[int], Path]
) -> None:
    """Catches a placeholder that stays until the next run."""
    call(8055, "clear-a", host=f"elsewhere.{site.domain}.")
    call(8055, "add-a", host=f"elsewhere.{site.domain}.", addresses=[site.address])
    eventually(lambda: not site.problem("elsewhere"), within=60)
    # A moment later, nginx has changed its workers
    eventually(lambda: site.served(f"elsewhere.{site.domain}", root(site.short)))


@pytest.mark.usefixtures("as_root")
def test_a_broken_configuration_does_not_take_the_site_down(site: Site, grown: Grown, eventually: Eventually) -> None:
    """Catches a renewal that breaks what runs, or leaves a certificate on disk that nobody serves."""
    unit, state = "groundcrew-acme@second", f"{STATE}/second/asked.json"
    site.host.check_output("systemctl stop %s.timer && cp -p /etc/nginx/nginx.conf /root/whole", unit)
    eventually(lambda: site.host.run("systemctl is-active %s", unit).stdout.strip() != "activating")
    site.host.check_output("echo broken >> /etc/nginx/nginx.conf")
    try:
        before = site.served(f"second.{site.domain}").serial_number
        # As if it had come from another server: a new one is due now
        site.host.check_output("echo '{}' > %s", state)
        assert site.host.run("systemctl start %s", unit).rc != 0
        assert "nginx.service refuses to reload" in site.problem("second")
        assert site.served(f"second.{site.domain}").serial_number == before
        kept = x509.load_pem_x509_certificate(site.host.file(f"{TLS}/second/fullchain.pem").content)
        assert kept.serial_number == before
    finally:
        site.host.check_output("cp -p /root/whole /etc/nginx/nginx.conf && systemctl start %s.timer", unit)
    eventually(lambda: site.served(f"second.{site.domain}").serial_number != before and not site.problem("second"), within=90)


@pytest.mark.usefixtures("as_root")
def test_without_its_server_the_certificate_stays_and_the_unit_fails(
    site: Site, grown: Grown, converge: Converge, authority: Any, eventually: Eventually, root: Callable[[int], Path]
) -> None:
    """Catches a server that is down and takes the site with it, or that nobody hears of; and one that has lost its accounts meanwhile."""
    trusted = root(site.short)
    authority.check_output("systemctl stop pebble@%s", site.server)
    try:
        # Due at once, as above
        site.host.check_output("echo '{}' > %s/default/asked.json", STATE)
        eventually(lambda: "The certificate before is in use" in site.problem(), within=60)
        site.served(roots=trusted)
        assert site.host.run("systemctl is-failed groundcrew-acme@default").stdout.strip() in ("failed", "activating")
        given = {"app_pending_command": "", "app_lock_host": "authority", "site_hosts": [site.domain]}
        status = converge(playbook="playbooks/status.yml", **given, **grown.options)
        assert "groundcrew-acme@default.service" in status.stdout, status.stdout
        assert "WARNING: The certificate before is in use" in status.stdout, status.stdout
    finally:
        authority.check_output("systemctl start pebble@%s", site.server)
    eventually(lambda: not site.problem(), within=90)
    eventually(lambda: site.served(roots=root(site.short)))
    # Of two, certbot would not know which to take
    assert site.host.check_output(f"find {STATE}/accounts/*:{site.short - 1000} -name regr.json").count("\n") == 0


@pytest.mark.usefixtures("grown", "as_root")
def test_nonces_were_refused(site: Site) -> None:
    """Catches a server that makes it too easy: what was seen above was seen with refused nonces, one in ten of a hundred requests."""
    assert int(site.host.check_output("cat %s/*/logs/* | grep -c badNonce || true", STATE)) > 0


@pytest.mark.one_release
@pytest.mark.usefixtures("as_root")
def test_the_mode_changes_without_a_gap(site: Site, grown: Grown, converge: Converge, root: Callable[[int], Path]) -> None:
    """Catches a change of mode that fails a request or leaves the other mode's timers, and a way back that asks for what is there."""
    with steady(site.load(root(site.short), root(PLAIN), CA)):
        assert converge(playbook=WEB, tls_mode="internal_ca").returncode == 0
        site.served(roots=CA)
        assert not site.host.check_output("systemctl list-timers --all --no-legend 'groundcrew-acme@*'")
        assert not site.host.file("/etc/groundcrew-acme/default.json").exists
        back = converge(playbook=WEB)
        assert back.returncode == 0, back.stdout
        site.served(roots=root(PLAIN))
