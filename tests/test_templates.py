"""What the roles' templates become. That daemons take it, and do what it says, is for the scenarios to show."""

from __future__ import annotations

import ast
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from tests.rendering import ROLES, render, value

SECRET = "W4vGq8sZ0pLr2xNd"
# Those in parts/ become no file of their own
TEMPLATES = sorted(path.relative_to(ROLES) for path in ROLES.glob("*/templates/**/*") if path.is_file() and path.parent.name != "parts")


@pytest.mark.parametrize("path", TEMPLATES, ids=str)
def test_each_file_says_that_ansible_owns_it(path: Path) -> None:
    lines = (ROLES / path).read_text(encoding="utf-8").splitlines()
    if path.name == "users.acl.j2":
        return  # Redis takes no comments there
    first = lines[1 if lines[0].startswith("#!") else 0]
    assert re.fullmatch(r"\{\{ ansible_managed \| comment(\(.*\))? \}\}", first)
    assert not re.search(r"ansible_date_time|now\(|lookup\('pipe'", "\n".join(lines)), "it would differ in every run"


BROKER: dict[str, Any] = {"name": "broker", "port": 6379, "maxmemory_mb": 64, "maxmemory_policy": "noeviction", "persistence": "aof"}
CACHE: dict[str, Any] = {"name": "cache", "port": 6380, "maxmemory_mb": 64, "maxmemory_policy": "allkeys-lru", "persistence": "none"}
GUNICORN: dict[str, Any] = {"gunicorn_name": "shop", "gunicorn_application": "shop.wsgi:app"}
CELERY: dict[str, Any] = {"celery_name": "shop", "celery_application": "shop.celery_app:celery"}


class TestFirewall:
    def render(self, openings: list[dict[str, Any]]) -> list[str]:
        text = render("firewall", "wanted.nft.j2", firewall_openings=openings)
        assert text.count("{") == text.count("}")
        return [line.strip() for line in text.splitlines()]

    def accepted(self, openings: list[dict[str, Any]]) -> list[str]:
        """The rules that openings add to what every host has."""
        always = self.render([])
        return [line for line in self.render(openings) if line not in always]

    def test_the_default_is_drop(self) -> None:
        lines = self.render([])
        assert "type filter hook input priority filter; policy drop;" in lines
        assert not [line for line in lines if "dport" in line and "accept" in line and "DHCP" not in line]

    def test_only_its_own_table_is_touched_and_in_one_transaction(self) -> None:
        lines = self.render([])
        assert lines.index("table inet groundcrew") < lines.index("delete table inet groundcrew") < lines.index("table inet groundcrew {")
        assert not any(line.startswith("flush ruleset") for line in lines)

    def test_an_opening_for_everybody(self) -> None:
        assert self.accepted([{"name": "web", "ports": [80, 443, 80]}]) == ['tcp dport { 80, 443 } counter accept comment "web"']

    def test_sources_of_both_families_get_a_rule_each(self) -> None:
        sources = ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1"]
        assert self.accepted([{"name": "db", "ports": [5432], "sources": sources}]) == [
            'ip saddr { 10.0.0.0/8, 192.0.2.1 } tcp dport { 5432 } counter accept comment "db"',
            'ip6 saddr { 2001:db8::/32 } tcp dport { 5432 } counter accept comment "db"',
        ]

    def test_sources_of_one_family_open_nothing_to_the_other(self) -> None:
        (line,) = self.accepted([{"name": "dns", "ports": [53], "protocol": "udp", "sources": ["2001:db8::/32"]}])
        assert line == 'ip6 saddr { 2001:db8::/32 } udp dport { 53 } counter accept comment "dns"'


class TestRedis:
    def settings(self, instance: dict[str, Any], **variables: Any) -> dict[str, str]:
        lines = render("redis", "redis.conf.j2", __redis_instance=instance, **variables).splitlines()
        return dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))

    def users(self, instance: str, users: list[dict[str, Any]]) -> list[str]:
        return render(
            "redis", "users.acl.j2", __redis_instance={"name": instance}, redis_users=users, __redis_key_file={"stat": {}}
        ).splitlines()

    def test_the_broker_keeps_and_the_cache_does_not(self) -> None:
        broker, cache = self.settings(BROKER), self.settings(CACHE)
        assert (broker["appendonly"], broker["maxmemory-policy"]) == ("yes", "noeviction")
        assert (cache["appendonly"], cache["save"], cache["maxmemory-policy"]) == ("no", '""', "allkeys-lru")

    def test_it_listens_on_declared_addresses_only(self) -> None:
        assert self.settings(CACHE)["bind"] == "127.0.0.1"
        assert self.settings({**CACHE, "addresses": ["10.0.0.2", "::1"]})["bind"] == "10.0.0.2 ::1"

    def test_own_settings_win(self) -> None:
        assert (
            self.settings({**CACHE, "extra_settings": {"appendfsync": "always", "lazyfree-lazy-expire": True}})["appendfsync"] == "always"
        )

    def test_passwords_are_hashed_and_users_stay_in_their_instance(self) -> None:
        lines = self.users(
            "broker",
            [
                {"name": "shop", "instance": "broker", "password": SECRET},
                {"name": "other", "instance": "cache", "password": "another-" + SECRET},
            ],
        )
        assert lines[0].startswith("user default off ")
        assert len(lines) == 3
        assert lines[1].startswith("user groundcrew on #")
        assert lines[2].startswith(f"user shop on #{hashlib.sha256(SECRET.encode()).hexdigest()} ")
        assert SECRET not in "".join(lines)
        assert {"-@admin", "-@dangerous"} <= set(lines[2].split())


class TestPostgresql:
    def hba(self, *lines: dict[str, Any]) -> list[str]:
        return [
            line for line in render("postgresql", "pg_hba.conf.j2", postgresql_hba=list(lines)).splitlines() if line[:1] not in {"#", ""}
        ]

    def settings(self, **variables: Any) -> dict[str, str]:
        lines = render("postgresql", "10-groundcrew.conf.j2", **variables).splitlines()
        return dict(line.split(" = ", 1) for line in lines if " = " in line)

    def test_without_lines_only_the_socket_lets_in(self) -> None:
        assert self.hba() == ["local all postgres peer", "local all all scram-sha-256"]

    @pytest.mark.parametrize(
        ("line", "becomes"),
        [
            ({"address": "10.0.0.5"}, "host all all 10.0.0.5/32 scram-sha-256"),
            ({"address": "fd00::5"}, "host all all fd00::5/128 scram-sha-256"),
            (
                {"type": "hostssl", "databases": ["shop"], "users": ["shop", "all"], "address": "10.0.0.0/8"},
                'hostssl "shop" "shop",all 10.0.0.0/8 scram-sha-256',
            ),
            ({"address": "10.0.0.0/8", "method": "reject"}, "host all all 10.0.0.0/8 reject"),
            ({"type": "local", "users": ["shop"], "method": "peer"}, 'local all "shop" peer'),
        ],
    )
    def test_a_line(self, line: dict[str, Any], becomes: str) -> None:
        assert self.hba(line)[1:-1] == [becomes]

    def test_memory_follows_the_host(self) -> None:
        small, large = self.settings(facts={"memtotal_mb": 512}), self.settings(facts={"memtotal_mb": 65536})
        assert (small["shared_buffers"], large["shared_buffers"]) == ("'128MB'", "'16384MB'")
        assert self.settings(postgresql_memory_mb=1024)["shared_buffers"] == "'256MB'"

    def test_own_settings_win_and_quotes_are_doubled(self) -> None:
        settings = self.settings(postgresql_extra_settings={"random_page_cost": 4, "search_path": "it's"})
        assert (settings["random_page_cost"], settings["search_path"]) == ("'4'", "'it''s'")

    def test_passwords_are_stored_by_scram_only(self) -> None:
        assert self.settings()["password_encryption"] == "'scram-sha-256'"


class TestApp:
    def environment(self, **variables: Any) -> dict[str, str]:
        """The environment file, read as systemd reads it (systemd.exec(5): double quotes, backslash before " \\ ` $)."""
        text = render("app", "environment.j2", app_name="shop", app_source="/src", **variables)
        found = re.findall(r'^(\w+)="((?:[^"\\]|\\.)*)"$', text, re.MULTILINE | re.DOTALL)
        return {name: re.sub(r'\\(["\\`$])', r"\1", value) for name, value in found}

    @pytest.mark.parametrize(
        "value", ["plain", "two words", 'a"b', "a\\b", "a\\", "$HOME `id`", "a%b%%", "two\nlines", "#no comment", "ü", "\\n"]
    )
    def test_values_survive_systemd(self, value: str) -> None:
        assert self.environment(app_environment={"A": value}, app_secret_environment={"B": "last"}) == {"A": value, "B": "last"}

    def test_numbers_and_booleans(self) -> None:
        assert self.environment(app_environment={"A": 1, "B": True, "C": "1"}) == {"A": "1", "B": "true", "C": "1"}

    def test_the_sandbox_holds_no_value_of_the_environment(self) -> None:
        text = render("app", "10-sandbox.conf.j2", app_name="shop", app_source="/src", app_secret_environment={"A": SECRET})
        assert SECRET not in text
        assert "User=shop\n" in text
        assert "EnvironmentFile=/etc/shop/environment\n" in render("app", "20-release.conf.j2", app_name="shop", app_source="/src")

    def test_own_settings_come_last(self) -> None:
        text = render(
            "app", "10-sandbox.conf.j2", app_name="shop", app_source="/src", app_service_settings={"MemoryDenyWriteExecute": False}
        )
        assert re.findall(r"^MemoryDenyWriteExecute=(.*)$", text, re.MULTILINE)[-1] == "false"


def directives(text: str) -> list[tuple[str, str]]:
    """Name and value of each line of a unit, lines that go on joined."""
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    return [(name, value) for name, sign, value in (line.partition("=") for line in lines) if sign and not name.startswith("#")]


class TestGunicorn:
    def configuration(self, **variables: Any) -> dict[str, Any]:
        lines = render("gunicorn", "gunicorn.conf.py.j2", **GUNICORN, **variables).splitlines()
        return {name: ast.literal_eval(value) for name, sign, value in (line.partition(" = ") for line in lines) if sign}

    def test_workers_follow_the_cores(self) -> None:
        settings = self.configuration(facts={"processor_vcpus": 4})
        assert (settings["workers"], settings["threads"], settings["worker_class"]) == (5, 4, "gthread")
        settings = self.configuration(facts={"processor_vcpus": 4}, gunicorn_worker_class="sync")
        assert (settings["workers"], settings["threads"]) == (9, 1)
        settings = self.configuration(facts={"processor_vcpus": 4}, gunicorn_interface="asgi")
        assert (settings["workers"], settings["threads"], settings["worker_class"]) == (4, 1, "asgi")

    def test_values_are_python(self) -> None:
        settings = self.configuration(
            gunicorn_preload=True, gunicorn_extra_settings={"proc_name": 'it\'s "me"', "backlog": None, "timeout": 5}
        )
        assert settings["preload_app"] is True
        assert settings["proc_name"] == 'it\'s "me"'
        assert settings["backlog"] is None
        assert settings["timeout"] == 5

    def test_each_slot_has_a_socket_for_the_web_server_alone(self) -> None:
        found = directives(render("gunicorn", "web@.socket.j2", **GUNICORN))
        assert [value for name, value in found if name == "ListenStream"] == ["/run/shop/web-%i/web.sock"]
        assert {("SocketGroup", "www-data"), ("SocketMode", "0660")} <= set(found)

    def test_headers_of_proxies_count(self) -> None:
        """Catches a uvicorn on a Unix socket, which sees no address there, for which nobody's X-Forwarded-Proto counts."""
        assert self.configuration()["forwarded_allow_ips"] == "*"

    def test_a_slot_runs_what_it_was_pinned_to(self) -> None:
        """Catches a unit that a crash or a reboot would start with a release or an environment that was not tried."""
        text = render("gunicorn", "web@.service.j2", **GUNICORN)
        assert "/current" not in text
        assert ("EnvironmentFile", "/etc/shop/slots/web/%i/environment") in directives(text)

    def test_the_unit_outlives_the_workers_grace(self) -> None:
        found = dict(directives(render("gunicorn", "web@.service.j2", **GUNICORN, gunicorn_graceful_timeout=40)))
        assert int(found["TimeoutStopSec"]) > 40
        assert found["Restart"] == "always"
        assert "MemoryMax" not in found


class TestCelery:
    def worker(self, worker: dict[str, Any], **variables: Any) -> dict[str, str]:
        return dict(directives(render("celery", "worker@.service.j2", __celery_unit={"worker": worker}, **CELERY, **variables)))

    def test_a_worker_takes_its_queues(self) -> None:
        command = self.worker({"name": "mail", "queues": ["mail", "slow"], "concurrency": 3})["ExecStart"]
        assert "--queues mail,slow " in command
        assert "--concurrency 3 " in command
        assert "--hostname mail-%i@%H " in command

    def test_a_stop_waits_for_the_longest_task(self) -> None:
        unit = self.worker({"name": "a", "queues": ["a"]})
        limit = re.search(r"--time-limit (\d+) ", unit["ExecStart"])
        assert limit
        assert int(unit["TimeoutStopSec"]) > int(limit[1])
        assert unit["KillMode"] == "mixed"

    def test_a_lost_worker_gives_its_task_back(self) -> None:
        command = self.worker({"name": "a", "queues": ["a"]}, celery_extra_settings={"worker_x": 60})["ExecStart"]
        assert '"task_acks_late=true"' in command
        assert '"task_reject_on_worker_lost=true"' in command
        assert command.endswith('"worker_x=60"')  # the last line goes on nowhere

    def test_limits_of_a_child(self) -> None:
        unit = self.worker({"name": "a", "queues": ["a"], "max_memory_per_child_kb": 9000, "memory_max": "1G"})
        assert "--max-memory-per-child 9000 " in unit["ExecStart"]
        assert unit["MemoryMax"] == "1G"

    def test_threads_know_no_limits_of_children(self) -> None:
        assert "--time-limit" not in self.worker({"name": "a", "queues": ["a"], "pool": "threads"})["ExecStart"]

    def test_kept_tasks_come_with_the_workers(self) -> None:
        """Catches tasks that stay parked after a crash or a reboot, and a process that stays behind in a slot without workers."""
        assert self.worker({"name": "a", "queues": ["a"]})["Wants"] == "shop-celery-parked@%i.service"
        found = dict(directives(render("celery", "celery-parked@.service.j2", **CELERY)))
        assert found["ExecStart"].endswith(" give-back shop.celery_app:celery 330")
        assert found["StopWhenUnneeded"] == "true"

    def test_beat_keeps_its_schedule(self) -> None:
        found = dict(directives(render("celery", "beat.service.j2", **CELERY)))
        assert "--schedule /var/lib/shop-beat/schedule " in found["ExecStart"]
        assert found["StateDirectory"] == "shop-beat"

    def test_beat_runs_what_the_live_workers_run(self) -> None:
        """Catches a schedule that comes from a release or an environment which no worker has tried."""
        unit = dict(directives(render("celery", "beat.service.j2", **CELERY)))
        assert unit["ExecStart"].startswith("/srv/shop/worker/live/release/venv/bin/celery ")
        found = directives(render("celery", "beat-live.conf.j2", **CELERY))
        assert ("WorkingDirectory", "-/srv/shop/worker/live/release/src") in found
        files = [value for name, value in found if name == "EnvironmentFile"]
        # The empty one takes back those of the application's other units
        assert files == ["", "/srv/shop/worker/live/copies/environment", "-/srv/shop/worker/live/release/release.env"]


class TestSmoke:
    def test_a_unit_that_does_not_run_is_blamed_before_one_that_was_restarted(self) -> None:
        """Catches a blame on whatever was restarted lately, while what failed stands still."""
        units = {"db.service": "was restarted 1 times, last less than a minute ago", "web.service": "is inactive ", "nginx.service": ""}
        results = [{"__smoke_unit": {"unit": unit, "host": "one"}, "stdout": says} for unit, says in units.items()]
        assert value("smoke", "__smoke_culprit", __smoke_states={"results": results}, __smoke_failed="Ask for a page") == {
            "unit": "web.service",
            "host": "one",
        }
