"""nginx as a service: what stops, closes and changes it. The last tests, for they end what others have under way."""

from __future__ import annotations

import threading
from typing import Any

import pytest

PLAIN = "plain.test.example"


@pytest.mark.usefixtures("as_root")
def test_the_package_has_started_nothing(host: Any) -> None:
    """Catches Debian's default page, shown until the role has configured nginx, and a policy-rc.d left for other packages."""
    assert "unmet condition" in host.check_output("journalctl -u nginx.service -o cat --no-pager").splitlines()[0]
    assert not host.file("/usr/sbin/policy-rc.d").exists


def test_a_closed_site_says_so(host: Any, server: Any) -> None:
    """Catches a maintenance page that needs a reload, that a closed site's health gets too, or that another site gets."""
    client = server.client()
    assert client.ask("GET", "/").status == 200
    with host.sudo():
        host.check_output("mkdir -p /var/lib/groundcrew/maintenance && touch /var/lib/groundcrew/maintenance/shop")
    try:
        page, api = client.ask("GET", "/"), client.ask("POST", "/api/reports", b"{}")
        health = client.ask("GET", "/healthz")
        other = server.get("/hello", PLAIN)
    finally:
        with host.sudo():
            host.check_output("rm /var/lib/groundcrew/maintenance/shop")
    assert [(answer.status, answer.headers["Retry-After"]) for answer in (page, api)] == [(503, "300")] * 2
    assert b"Closed for maintenance" in page.body
    assert api.json() == {"error": "maintenance"}
    assert (health.status, other.status) == (200, 200)
    assert client.ask("GET", "/").status == 200


def test_the_application_sleeps_with_no_harm(host: Any, server: Any) -> None:
    """Catches an application that answers no more after its restart."""
    with host.sudo():
        host.check_output("systemctl restart upstream.service")
    assert server.get("/").status == 200


def test_killed_nginx_comes_back(host: Any, server: Any, eventually: Any) -> None:
    """Catches a unit without a restart policy."""
    with host.sudo():
        pid = host.check_output("systemctl show -P MainPID nginx.service")
        host.check_output("systemctl kill --kill-whom=main --signal=KILL nginx.service")
        # An answer alone may still be one of the killed master's workers
        eventually(lambda: host.check_output("systemctl show -P MainPID nginx.service") not in {"0", pid})
    assert server.get("/").status == 200


def test_logs_rotate_and_nginx_goes_on(host: Any, server: Any, eventually: Any) -> None:
    """Catches a sandbox in which nginx cannot open its logs anew, by rotation or by reload."""
    with host.sudo():
        host.check_output("logrotate --force /etc/logrotate.d/nginx")
        host.check_output("systemctl reload nginx.service")
        request_id = eventually(lambda: server.get("/").headers["X-Request-ID"])
        eventually(lambda: request_id in host.file("/var/log/nginx/access.log").content_string)


def test_an_update_of_the_package_fails_no_request(host: Any, server: Any, eventually: Any) -> None:
    """Catches a sandbox in which nginx cannot start its new program beside the old one, as Debian's package has it do at an update."""
    seen: list[int | str] = []
    ended = threading.Event()

    def visit() -> None:
        while not ended.is_set():
            try:
                seen.append(server.get("/").status)
            except OSError as error:
                seen.append(str(error))

    visitor = threading.Thread(target=visit)
    visitor.start()
    try:
        with host.sudo():
            before = host.check_output("systemctl show -P MainPID nginx.service")
            host.check_output("/etc/init.d/nginx upgrade")
            eventually(lambda: host.check_output("systemctl show -P MainPID nginx.service") not in {"0", before})
            assert host.check_output("systemctl is-active nginx.service") == "active"
    finally:
        ended.set()
        visitor.join()
    assert set(seen) == {200}


def test_nothing_of_it_is_root(host: Any) -> None:
    """Catches a master that a fault in nginx, its modules or its logs would make the host's owner."""
    assert set(host.check_output("ps -o user= -C nginx").split()) == {"www-data"}


def test_security_score(exposure: Any) -> None:
    """Catches a sandbox that went missing."""
    assert exposure("nginx.service") <= 2.0


@pytest.mark.one_release
def test_broken_configuration_stays_out(host: Any, server: Any, converge: Any) -> None:
    """Catches a configuration that lands although nginx refuses it, and would keep it down after a boot."""
    before = host.file("/etc/nginx/nginx.conf").sha256sum
    result = converge(nginx_extra_settings={"no_such_setting": "on"})
    assert result.returncode == 2
    assert 'unknown directive "no_such_setting"' in result.stdout + result.stderr
    assert host.file("/etc/nginx/nginx.conf").sha256sum == before
    assert server.get("/").status == 200


@pytest.mark.one_release
def test_a_key_that_it_may_not_read_stays_out(host: Any, server: Any, converge: Any) -> None:
    """Catches a configuration that nginx refuses only once it is there."""
    key = "/etc/ssl/groundcrew/default/privkey.pem"
    before = host.file("/etc/nginx/nginx.conf").sha256sum
    with host.sudo():
        host.check_output(f"chmod 0600 {key}")
        try:
            result = converge(nginx_client_send_timeout=7)
        finally:
            host.check_output(f"chmod 0640 {key}")
    assert result.returncode == 2
    assert f"nginx runs as www-data, and cannot read {key}" in " ".join((result.stdout + result.stderr).split())
    assert host.file("/etc/nginx/nginx.conf").sha256sum == before
    assert server.get("/").status == 200


@pytest.mark.one_release
def test_a_renewed_certificate_is_served(host: Any, server: Any, converge: Any) -> None:
    """Catches a certificate file that changes on disk and is never read."""
    with host.sudo():
        host.check_output("touch /etc/ssl/groundcrew/default/fullchain.pem")
        main = host.check_output("systemctl show -P MainPID nginx.service")
        result = converge()
        assert result.returncode == 0, result.stdout
        assert "Reload nginx" in result.stdout
        assert "Restart nginx" not in result.stdout
        assert host.check_output("systemctl show -P MainPID nginx.service") == main
    assert server.get("/").status == 200
