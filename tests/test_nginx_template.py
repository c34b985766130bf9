"""What nginx.conf becomes. That nginx takes it, and does what it says, is for the scenario to show."""

from __future__ import annotations

import re
from typing import Any

from tests.rendering import MANAGED, render

SITE: dict[str, Any] = {
    "name": "shop",
    "server_names": ["www.example.org", "example.org"],
    "certificate_file": "/etc/ssl/shop/fullchain.pem",
    "certificate_key_file": "/etc/ssl/shop/privkey.pem",
    "upstreams": ["unix:/run/shop/web.sock"],
    "static": [{"url": "/static/", "path": "/srv/shop/static"}],
}
DEBIAN_12 = {"distribution_major_version": "12", "distribution_release": "bookworm"}


class TestNginx:
    def render(self, sites: list[dict[str, Any]], **variables: Any) -> str:
        text = render("nginx", "nginx.conf", nginx_sites=sites, **variables)
        assert text.startswith(f"#\n# {MANAGED}\n#\n")
        bare = re.sub(r"'[^'\n]*'|\"[^\"\n]*\"|#[^\n]*", "", text)
        assert bare.count("{") == bare.count("}")
        return text

    def blocks(self, text: str, opening: str) -> list[str]:
        """What stands in the blocks that begin with a line of a certain text, by their indentation."""
        return [found[2] for found in re.finditer(rf"^( *){opening}[^\n]*{{\n(.*?)^\1}}$", text, re.MULTILINE | re.DOTALL)]

    def servers(self, text: str) -> list[str]:
        return self.blocks(text, "server ")

    def test_unknown_hosts_get_nothing(self) -> None:
        first = self.servers(self.render([SITE]))[0]
        assert "default_server" in first
        assert "ssl_reject_handshake on;" in first
        assert "return 444;" in first

    def test_a_site_called_by_its_address_has_a_certificate_for_the_handshake(self) -> None:
        first = self.servers(self.render([{**SITE, "server_names": ["192.0.2.10"]}]))[0]
        assert "ssl_certificate /etc/ssl/shop/fullchain.pem;" in first
        assert "return 444;" in first

    def test_every_name_is_redirected_to_https_on_the_public_port(self) -> None:
        text = self.render([SITE, {**SITE, "name": "two", "server_names": ["two.example.org"]}], nginx_public_https_port=8443)
        redirect = self.servers(text)[1]
        assert "server_name www.example.org example.org two.example.org;" in redirect
        assert "return 301 https://$host:8443$request_uri;" in redirect
        assert "return 301 https://$host$request_uri;" in self.render([SITE])

    def test_every_place_that_adds_a_header_adds_them_all(self) -> None:
        site = self.servers(self.render([SITE]))[2]
        places = [site.split(" location ")[0], *(body for body in self.blocks(site, "location ") if "add_header" in body)]
        assert len(places) == 6
        for place in places:
            for header in ("Strict-Transport-Security", "X-Content-Type-Options", "Content-Security-Policy", "X-Request-ID"):
                assert re.search(rf'add_header {header} "[^"]+" always;', place)

    def test_a_closed_site_still_answers_those_who_watch_it(self) -> None:
        """Catches a maintenance page that monitors and readiness get too, or that needs a reload."""
        site = self.servers(self.render([{**SITE, "health_paths": ["/healthz"]}]))[2]
        (all_else,), (health,) = self.blocks(site, "location / "), self.blocks(site, "location = /healthz ")
        assert "if (-f /var/lib/groundcrew/maintenance/shop)" in all_else
        assert "proxy_pass http://shop/;" in all_else
        assert "proxy_pass http://shop/healthz;" in health
        assert "maintenance" not in health

    def test_an_empty_header_takes_one_back(self) -> None:
        assert "X-Frame-Options" in self.render([SITE])
        assert "X-Frame-Options" not in self.render([{**SITE, "headers": {"X-Frame-Options": ""}}])

    def test_static_files_are_looked_for_in_one_folder_after_the_other(self) -> None:
        folder = {
            "url": "/static.v1/",
            "path": "/srv/shop/live/static/",
            "fallbacks": ["/srv/shop/blue/static", "/srv/shop/green/static//"],
        }
        (found,) = self.blocks(self.render([{**SITE, "static": [folder]}]), r"location \^~ /static.v1/ ")
        assert r"rewrite ^/static\.v1/(.*)$ /$1 break;" in found
        (files,) = re.findall(r"try_files (.*);", found)
        folders = [f"/srv/shop/{slot}/static" for slot in ("live", "blue", "green")]
        assert files.split() == [*(f"{path}$uri{index}" for path in folders for index in ("", "/index.html")), "=404"]

    def test_http2_is_written_as_the_release_reads_it(self) -> None:
        old, new = self.render([SITE], facts=DEBIAN_12), self.render([SITE])
        assert "listen 443 ssl http2;" in old
        assert "http2 on;" not in old
        assert "listen 443 ssl;" in new
        assert "http2 on;" in new

    def test_session_tickets_are_off_where_their_keys_do_not_rotate(self) -> None:
        assert "ssl_session_tickets off;" in self.render([SITE], facts=DEBIAN_12)

    def test_only_tls_1_2_and_1_3(self) -> None:
        assert re.findall(r"ssl_protocols (.*);", self.render([SITE])) == ["TLSv1.2 TLSv1.3"]

    def test_the_request_id_reaches_application_and_log(self) -> None:
        text = self.render([SITE])
        assert "proxy_set_header X-Request-ID $request_id;" in text
        assert '"request_id":"$request_id"' in text

    def test_without_sites_nothing_is_served(self) -> None:
        assert len(self.servers(self.render([]))) == 1

    def test_an_inspected_site_refuses_in_its_own_words_and_spares_its_files(self) -> None:
        site = self.servers(self.render([{**SITE, "waf_rules_file": "/etc/modsecurity/shop.conf"}]))[2]
        assert "modsecurity_rules_file /etc/modsecurity/shop.conf;" in site
        (refused,) = self.blocks(site, "location @refused")
        assert "$request_id" in refused
        assert "Content-Security-Policy" in refused
        # It would come before the inspection that is logged
        assert "return" not in refused
        assert "modsecurity off;" in self.blocks(site, r"location \^~ /static/")[0]
        assert "modsecurity" not in self.render([SITE])

    def test_http3_shares_one_socket_among_the_workers(self) -> None:
        """Catches reuseport on more than one server, which nginx refuses, and a site that QUIC does not reach."""
        text = self.render([SITE], nginx_http3=True)
        default, redirect, site = self.servers(text)
        assert (
            default.count("listen 443 quic reuseport default_server;") == text.count("quic reuseport") - default.count("[::]:443 quic") == 1
        )
        assert "listen 443 quic;" in site
        assert "quic" not in redirect
        assert "add_header Alt-Svc 'h3=\":443\"; ma=86400' always;" in site
        assert "quic" not in self.render([SITE])

    def test_an_inner_route_takes_what_it_does_not_say_from_the_outer_one(self) -> None:
        """Catches an inner route that opens what the outer one has closed."""
        hashed = [{"name": "ada", "password_hash": "$6$x"}]
        routes = [
            {"path": "/a/b", "body_limit_mb": 9},
            {"path": "/a", "allow": ["10.0.0.0/8"], "basic_auth": hashed, "limits": {"requests": 5, "per": "minute"}},
            {"path": "/a/b/c", "allow": [], "basic_auth": [], "limits": {"requests": 7}},
        ]
        text = self.render([{**SITE, "limits": {"requests": 300, "burst": 600}, "routes": routes}])
        (inner,) = self.blocks(text, r"location \^~ /a/b/ ")
        for line in ("allow 10.0.0.0/8;", "deny all;", "auth_basic_user_file /etc/nginx/users/shop:a;", "client_max_body_size 9m;"):
            assert line in inner
        assert "limit_req zone=requests_shop burst=600 nodelay;" in inner
        assert "limit_req zone=requests_shop/a burst=5 nodelay;" in inner
        assert "set $retry_after 12;" in inner
        (innermost,) = self.blocks(text, "location = /a/b/c ")
        for line in ("allow all;", "auth_basic off;", "limit_req zone=requests_shop/a/b/c burst=7 nodelay;", "client_max_body_size 9m;"):
            assert line in innermost
        assert "requests_shop/a " not in innermost
