"""What the role nginx must know about sites, read on the controller before a host changes."""

from __future__ import annotations

import datetime
import ipaddress
import re
import typing as t

# A route's words stand in nginx.conf, in the names of zones and of files
ROUTE_PATH = re.compile(r"(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._~-]+)+")
USER_NAME = re.compile(r"[A-Za-z0-9_.@-]+")
# What Debian's crypt() knows and nginx, which computes it at each request and serves nobody meanwhile, has done within some milliseconds
PASSWORD_HASH = re.compile(
    r"\$6\$(?:rounds=[0-9]{4,5}\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{86}|\$2[aby]\$(?:0[4-9]|10)\$[./A-Za-z0-9]{53}"
)
SECURITY_TXT_URI = re.compile(r"(?:https://|mailto:|tel:)[^\s'\"\\$;{}]+")
SECURITY_TXT_TIME = "%Y-%m-%dT%H:%M:%SZ"
LANGUAGES = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*(?:, ?[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*)*")

Found = tuple[str, t.Any, str]
Rule = dict[str, t.Any]


def is_network(text: t.Any) -> bool:
    """Whether it is an address, or a network whose host part is empty: nginx would only warn of another one."""
    try:
        ipaddress.ip_network(str(text))
    except ValueError:
        return False
    return True


def network_problems(at: str, networks: list[t.Any]) -> t.Iterator[Found]:
    for wrong in (one for one in networks if not is_network(one)):
        yield at, wrong, "addresses or networks such as 192.0.2.10, 10.0.0.0/8 or 2001:db8::/32"


def rule_problems(at: str, rules: dict[str, t.Any]) -> t.Iterator[Found]:
    """What is wrong in the rules that a site and a route have alike."""
    for name, largest in (("body_limit_mb", None), ("timeout_seconds", 86400)):
        value = rules.get(name)
        if value is not None and (int(value) < 1 or (largest and int(value) > largest)):
            yield f"{at}.{name}", value, f"1 to {largest}" if largest else "1 or more"
    limits = rules.get("limits") or {}
    for name, least in (("requests", 1), ("burst", 1), ("connections", 1)):
        value = limits.get(name)
        if value is not None and not least <= int(value) <= 65535:
            yield f"{at}.limits.{name}", value, f"{least} to 65535"
    if limits.get("burst") is not None and limits.get("requests") is None:
        yield f"{at}.limits.burst", limits["burst"], "a burst beside a number of requests"
    yield from network_problems(f"{at}.allow", rules.get("allow") or [])
    users = rules.get("basic_auth") or []
    names = [str(user["name"]) for user in users]
    if len(set(names)) < len(names):
        yield f"{at}.basic_auth", names, "names of users that differ"
    for index, user in enumerate(users):
        if not USER_NAME.fullmatch(names[index]):
            yield f"{at}.basic_auth[{index}].name", names[index], "letters, digits and any of . _ @ -"
        if not PASSWORD_HASH.fullmatch(str(user["password_hash"])):
            allowed = "what `openssl passwd -6` prints, or bcrypt with a cost of at most 10 (nginx computes it at each request)"
            yield f"{at}.basic_auth[{index}].password_hash", "********", allowed


def route_problems(at: str, site: dict[str, t.Any]) -> t.Iterator[Found]:
    routes = site.get("routes") or []
    paths = [str(route["path"]) for route in routes]
    if routes and not site.get("upstreams"):
        yield f"{at}.routes", paths, "routes in a site with upstreams only: they are the application's"
    if len(set(paths)) < len(paths):
        yield f"{at}.routes", paths, "paths that differ"
    for index, path in enumerate(paths):
        if not ROUTE_PATH.fullmatch(path):
            allowed = "a path such as /api/reports: it begins with a slash, ends without one, and stands for all that is below it too"
            yield f"{at}.routes[{index}].path", path, allowed
        for folder in site.get("static") or []:
            if str(folder["url"]).startswith(f"{path}/"):
                allowed = f"a route with no static folder in it: its rules would not hold for {folder['url']}, the whole site's do"
                yield f"{at}.routes[{index}].path", path, allowed
        yield from rule_problems(f"{at}.routes[{index}]", routes[index])


def security_txt_problems(at: str, fields: dict[str, t.Any]) -> t.Iterator[Found]:
    """What RFC 9116 would not have."""
    if not fields.get("contact"):
        yield f"{at}.contact", "(not set)", "at least one mailto:, https:// or tel:"
    for name in ("contact", "encryption", "acknowledgments", "policy", "hiring"):
        value = fields.get(name) or []
        for wrong in (one for one in ([value] if isinstance(value, str) else value) if not SECURITY_TXT_URI.fullmatch(str(one))):
            yield f"{at}.{name}", wrong, "a URI: mailto:security@example.org, https://example.org/policy or tel:+1-201-555-0123"
    languages = fields.get("preferred_languages")
    if languages and not LANGUAGES.fullmatch(languages):
        yield f"{at}.preferred_languages", languages, "languages such as en, de-AT"
    allowed = 'a time to come, of a year at most, such as "2030-01-31T00:00:00Z": until then, what the file says holds'
    try:
        expires = datetime.datetime.strptime(str(fields.get("expires")), SECURITY_TXT_TIME).replace(tzinfo=datetime.UTC)
    except ValueError:
        yield f"{at}.expires", fields.get("expires") or "(not set)", allowed
        return
    if not datetime.timedelta(0) < expires - datetime.datetime.now(datetime.UTC) <= datetime.timedelta(days=366):
        yield f"{at}.expires", fields.get("expires") or "(not set)", allowed


def nginx_site_rules(sites: list[dict[str, t.Any]]) -> list[Rule]:
    """Rules for role_variables that the sites break."""
    found: list[Found] = []
    for index, site in enumerate(sites):
        at = f"nginx_sites[{index}]"
        found += rule_problems(at, site)
        found += route_problems(at, site)
        if any((site.get("security_txt") or {}).values()):
            found += security_txt_problems(f"{at}.security_txt", site["security_txt"])
    return [{"variable": variable, "that": "false", "value": repr(str(value)), "allowed": allowed} for variable, value, allowed in found]


def nginx_network_rules(networks: list[t.Any], variable: str) -> list[Rule]:
    """The same for a list of addresses and networks."""
    found = network_problems(variable, networks)
    return [{"variable": variable, "that": "false", "value": repr(str(value)), "allowed": allowed} for variable, value, allowed in found]


def nginx_user_files(sites: list[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """The files of users that the sites and their routes need, and the users in each."""
    return [
        {"name": site["name"] + str(rules.get("path", "")).replace("/", ":"), "users": rules["basic_auth"]}
        for site in sites
        for rules in (site, *(site.get("routes") or []))
        if rules.get("basic_auth")
    ]


class FilterModule:
    """The filters of the role nginx."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {
            "nginx_network_rules": nginx_network_rules,
            "nginx_site_rules": nginx_site_rules,
            "nginx_user_files": nginx_user_files,
        }
