"""Bad input of certificates, and of the rules that a site has."""

from __future__ import annotations

from tests.bad_input_examples import CACHE_USER, GOOD_PAIR, OPENING, OTHER_PAIR, SECRET, SITE, USER, Case, acme, key_pair, provided

EDGE = [
    # Certificates
    Case(
        "tls",
        "expired certificate",
        provided(*key_pair("www.example.org", days=-1)),
        ("tls_certificates[0].certificate", "expired on", "a certificate that has not expired"),
    ),
    Case(
        "tls",
        "mismatched key",
        provided(GOOD_PAIR[0], OTHER_PAIR[1]),
        ("tls_certificates[0].private_key", "CN=www.example.org", "belongs to another"),
    ),
    Case(
        "tls",
        "name not covered",
        provided(*key_pair("example.org")),
        ("tls_certificates[0].certificate", "CN=example.org", "does not cover www.example.org"),
    ),
    Case("tls", "no certificate", provided("", ""), ("tls_certificates[0].",)),
    Case("tls", "terms", acme(tls_acme_agree_terms=False), ("tls_acme_agree_terms", "false", "read the terms")),
    Case("tls", "address of ACME", acme("192.0.2.1"), ("tls_certificates[0].names", "192.0.2.1", "sign for no address")),
    Case("tls", "wildcard by HTTP", acme("*.example.org"), ("tls_certificates[0].names", "*.example.org", "challenge: dns-01")),
    Case("tls", "private name", acme("intranet"), ("tls_certificates[0].names", "intranet", "names that are public")),
    Case("tls", "no hook", acme("*.example.org", challenge="dns-01"), ("tls_certificates[0].challenge", "dns-01", "tls_acme_dns_hook")),
    Case(
        "tls",
        "plain directory",
        acme(tls_acme_directory_url="http://acme.example.org/dir"),
        ("tls_acme_directory_url", "http://", "https://"),
    ),
    Case("tls", "half a binding", acme(tls_acme_eab={"kid": "AbC123"}), ("tls_acme_eab", "kid", "both kid and hmac_key")),
    Case("tls", "broken binding", acme(tls_acme_eab={"kid": "AbC123", "hmac_key": f"{SECRET}\nserver = x"}), ("tls_acme_eab", "base64url")),
    Case(
        "tls",
        "no CA file",
        acme(tls_acme_ca_file="/nonexistent.pem"),
        ("tls_acme_ca_file", "/nonexistent.pem", "a PEM file on the controller"),
    ),
    Case("tls", "no service", acme(tls_reload_units=["nginx"]), ("tls_reload_units", "nginx", "such as nginx.service")),
    # What a site's rules would not do
    Case(
        "nginx",
        "HTTP3 on Debian 12",
        {"nginx_http3": True},
        ("nginx_http3", "true", "that of Debian 12 is 1.22"),
        {"ansible_distribution_major_version": "12", "ansible_distribution_version": "12.5"},
    ),
    Case("nginx", "proxy by name", {"nginx_proxies": ["lb1"]}, ("nginx_proxies", "lb1", "addresses or networks")),
    Case(
        "nginx",
        "a network with a host part",
        {"nginx_sites": [{**SITE, "allow": ["10.0.0.1/8"]}]},
        ("nginx_sites[0].allow", "10.0.0.1/8", "addresses or networks"),
    ),
    *(
        Case(
            "nginx",
            f"route number {number}",
            {"nginx_sites": [{**SITE, "routes": [{"path": path}]}]},
            ("nginx_sites[0].routes[0].path", path, "a path such"),
        )
        for number, path in enumerate(("api", "/api/", "/a/../b", "/a%2fb", "/a b", "/"))
    ),
    Case(
        "nginx",
        "a static folder in a route",
        {"nginx_sites": [{**SITE, "routes": [{"path": "/a"}], "static": [{"url": "/a/static/", "path": "/srv/shop/static"}]}]},
        ("nginx_sites[0].routes[0].path", "/a", "its rules would not hold for /a/static/"),
    ),
    Case(
        "nginx",
        "no requests at all",
        {"nginx_sites": [{**SITE, "limits": {"requests": 0}}]},
        ("nginx_sites[0].limits.requests", "0", "1 to 65535"),
    ),
    Case(
        "nginx",
        "a password in the clear",
        {"nginx_sites": [{**SITE, "basic_auth": [{"name": "ada", "password_hash": SECRET}]}]},
        ("nginx_sites[0].basic_auth[0].password_hash", "********", "openssl passwd -6"),
    ),
    Case(
        "nginx",
        "a security.txt of the past",
        {"nginx_sites": [{**SITE, "security_txt": {"contact": ["mailto:security@example.org"], "expires": "2020-01-31T00:00:00Z"}}]},
        ("nginx_sites[0].security_txt.expires", "2020-01-31T00:00:00Z", "a time to come"),
    ),
    Case(
        "nginx",
        "a security.txt without contact",
        {"nginx_sites": [{**SITE, "security_txt": {"expires": "2020-01-31T00:00:00Z"}}]},
        ("nginx_sites[0].security_txt.contact", "(not set)", "mailto:"),
    ),
    Case(
        "nginx",
        "a fallback without a root",
        {"nginx_sites": [{**SITE, "static": [{"url": "/static/", "path": "/srv/shop/static", "fallbacks": ["shop/static"]}]}]},
        ("nginx_sites", "absolute paths"),
    ),
    Case(
        "firewall",
        "two openings with one name",
        {"firewall_openings": [OPENING, OPENING]},
        ("firewall_openings", "names of openings that differ"),
    ),
    Case(
        "redis",
        "two users with one name",
        {"redis_users": [USER, USER, CACHE_USER]},
        ("redis_users", "broker/shop", "user names that differ within an instance"),
    ),
    Case(
        "celery",
        "two workers with one name",
        {"celery_workers": [{"name": "a", "queues": ["a"]}, {"name": "a", "queues": ["b"]}]},
        ("celery_workers", "worker names that differ"),
    ),
]
