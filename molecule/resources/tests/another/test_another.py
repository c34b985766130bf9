"""Another application, deployed by variables alone. The run itself ends with a page, its health and an order packed."""

from __future__ import annotations

from typing import Any


def test_order_is_packed(site: Any, eventually: Any) -> None:
    """Catches a database, a broker or a worker that is only wired for the sample application."""
    location = site.request("POST", "/api/orders", {"item": "chair"}).headers["Location"]
    assert eventually(lambda: site.finished(location))


def test_requests_go_through_the_pool_and_migrations_past_it(site: Any, host: Any) -> None:
    """Catches a pool that the application passes by, and a migration whose limits, as options at the beginning, a pool would refuse."""
    with host.sudo("pgbouncer"):
        console = "psql -XAtq -h /run/pgbouncer -p 6432 pgbouncer -c 'SHOW STATS'"

        def transactions() -> int:
            return sum(int(line.split("|")[1]) for line in host.check_output(console).splitlines() if line.startswith("shop|"))

        before = transactions()
        assert site.get("/").status == 200
        assert transactions() > before
    with host.sudo():
        assert "@127.0.0.1:6432/shop" in host.file("/etc/shop/environment").content_string
        assert "@127.0.0.1:5432/shop" in host.file("/etc/shop/environment.migrate").content_string


def test_page_knows_its_settings_and_its_scheme(site: Any) -> None:
    """Catches a setting that quoting has changed, and an application that takes its visitors to be on plain HTTP."""
    page = site.get("/").body.decode()
    assert page.startswith("Don't panic: 5 % off $everything /static/site.css https ")


def test_files_come_from_disk_and_are_asked_for_again(site: Any, host: Any) -> None:
    """Catches static files of a plain name that browsers keep for a year, and files that only the application can serve."""
    with host.sudo():
        host.check_output("systemctl stop $(systemctl list-units --plain --no-legend 'shop-web@*' | cut -d' ' -f1)")
    try:
        answer = site.get("/static/site.css")
    finally:
        with host.sudo():
            host.check_output("systemctl start shop-web@$(readlink /srv/shop/web/live).service")
    assert answer.status == 200
    assert answer.body == b"body { margin: 0 }\n"
    assert "immutable" not in str(answer.headers["Cache-Control"])


def test_nothing_of_the_sample_is_there(host: Any) -> None:
    """Catches a name of the sample application that stands in a role."""
    assert host.run("getent passwd textreport").rc != 0
    assert "textreport" not in host.check_output("systemctl list-units --all --plain --no-legend")
