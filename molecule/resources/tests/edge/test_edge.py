"""Two web servers with one address and two application hosts: what fails costs what was in flight on it, and what is planned nothing."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from tools import engine
from tools.console import ROOT, say
from tools.load import Load, Request, summary

EDGES, APPS = ("edge1", "edge2"), ("app1", "app2")
SITE = "https://www.test.example"
MIX = [Request("GET", "/page"), Request("POST", "/form", '{"number": {number}}')]
DIRECTORY = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])


@pytest.fixture(scope="module")
def addresses(addresses: dict[str, str]) -> dict[str, str]:
    """Return each host's address, and the one that moves."""
    return addresses | {"edge": addresses["edge1"].rpartition(".")[0] + ".200"}


@pytest.fixture(scope="module")
def docker() -> DockerClient:
    """Return the engine, which takes the power from hosts."""
    return engine.connect()


def console(docker: DockerClient, name: str, command: str) -> str:
    """What a command says that root runs on a host."""
    code, output = docker.containers.get(f"groundcrew-edge-{name}").exec_run(["sh", "-c", command])
    assert code == 0, (name, command, output)
    assert isinstance(output, bytes)
    return output.decode()


def holders(docker: DockerClient, addresses: dict[str, str]) -> list[str]:
    """The web servers that have the address."""
    running = [name for name in EDGES if docker.containers.get(f"groundcrew-edge-{name}").status == "running"]
    return [name for name in running if f" {addresses['edge']}/" in console(docker, name, "ip -o -4 address")]


def states(docker: DockerClient, edge: str) -> dict[str, str]:
    """What a web server's proxy thinks of each application host."""
    said = console(docker, edge, "echo show stat | socat - UNIX-CONNECT:/run/haproxy/admin.sock")
    rows = [line.split(",") for line in said.splitlines() if line.startswith("shop,app")]
    return {row[1]: row[17] for row in rows}


@pytest.fixture(autouse=True)
def all_is_well(docker: DockerClient, addresses: dict[str, str], eventually: Any) -> None:
    """Begin each test with both application hosts up, and the address at one web server."""
    eventually(lambda: all(states(docker, edge) == dict.fromkeys(APPS, "UP") for edge in EDGES), 60)
    eventually(lambda: len(holders(docker, addresses)) == 1, 30)


def ask(address: str, path: str = "/", timeout: float = 10, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """What the application says that it got."""
    client = Load(SITE, [], 1, DIRECTORY / "ca/ca.pem", address, timeout=timeout).client()
    try:
        client.request("GET", path, headers=headers or {})
        answer = client.getresponse()
        body = answer.read()
        assert answer.status == 200, (answer.status, body)
        return {"status": answer.status, "cookie": answer.headers["Set-Cookie"], **json.loads(body)}
    finally:
        client.close()


@contextmanager
def load(address: str, rate: float = 40) -> Iterator[list[Any]]:
    """Ask at a fixed rate while the body runs; the list has the answers afterwards."""
    running = Load(SITE, MIX, rate, DIRECTORY / "ca/ca.pem", address, timeout=20)
    found: list[Any] = []
    running.start()
    try:
        time.sleep(1)  # of load before what happens
        yield found
        time.sleep(2)  # and after it
    finally:
        found += running.stop()


def run(name: str, host: str, task: dict[str, Any], *options: str, **variables: Any) -> str:
    """Run a task on a host, and return what is said of it."""
    text = [{"name": "Run it", "hosts": host, "become": True, "gather_facts": False, "tasks": [{"name": "Run it", **task}]}]
    book = DIRECTORY / f"{name}.yml"
    book.write_text(json.dumps(text))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), f"--inventory={os.environ['MOLECULE_INVENTORY_FILE']}"]
    command += [f"--extra-vars={json.dumps(variables)}", *options, str(book)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def play(tasks: str, host: str, *options: str, **variables: Any) -> str:
    """Run one of the playbooks' lists of tasks for a host."""
    return run(tasks, host, {"ansible.builtin.include_tasks": str(ROOT / f"playbooks/tasks/{tasks}.yml")}, *options, **variables)


def changed(said: str, host: str) -> int:
    """How many tasks have changed something."""
    found = re.search(rf"^{host} .*changed=(\d+)", said, re.MULTILINE)
    assert found, said[-1000:]
    return int(found[1])


def test_the_application_hears_who_asks(addresses: dict[str, str]) -> None:
    """Catches an address, a name or a number of a request that is lost on the way through two proxies, and a client's own word on it."""
    got = ask(addresses["edge1"], "/path%20with?x=%C3%A4", headers={"X-Forwarded-For": "203.0.113.9"})
    headers = {name.lower(): value for name, value in got["headers"].items()}
    assert headers["x-forwarded-for"] == headers["x-real-ip"] == addresses["edge1"].rpartition(".")[0] + ".1"
    assert (headers["x-forwarded-proto"], headers["host"]) == ("https", "www.test.example")
    assert len(headers["x-request-id"]) == 32
    assert got["path"] == "/path%20with?x=%C3%A4"


def test_both_application_hosts_get_requests(addresses: dict[str, str]) -> None:
    """Catches an application host that never gets a request."""
    for edge in EDGES:
        assert {ask(addresses[edge])["host"] for _ in range(10)} == set(APPS)


def test_a_large_header_and_body_arrive(addresses: dict[str, str]) -> None:
    """Catches a proxy whose limits are below those of the web server."""
    got = ask(addresses["edge1"], headers={f"X-Large-{number}": "x" * 7000 for number in range(3)})
    assert [len(value) for name, value in got["headers"].items() if name.lower().startswith("x-large")] == [7000] * 3
    client = Load(SITE, [], 1, DIRECTORY / "ca/ca.pem", addresses["edge1"], timeout=20).client()
    client.request("POST", "/upload", "x" * 5_000_000)
    assert json.loads(client.getresponse().read())["received"] == 5_000_000


CONNECT = """
import json, socket, ssl, sys
host, cert, key = sys.argv[1:]
raw = socket.create_connection((host, 8000), timeout=5)
if cert != "plain":
    context = ssl.create_default_context(cafile="/etc/ssl/groundcrew/ca.pem")
    context.check_hostname = False
    if cert:
        context.load_cert_chain(cert, key)
    raw = context.wrap_socket(raw)
raw.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
print(raw.recv(12).decode("latin1"))
"""


def test_only_a_web_servers_certificate_opens_the_application(docker: DockerClient, addresses: dict[str, str]) -> None:
    """Catches an application that answers in plain text, without a certificate, or to another host that the authority has signed for."""
    other = "/root/other"
    for file in ("fullchain.pem", "privkey.pem"):
        text = console(docker, "app2", f"cat /etc/ssl/groundcrew/peer/{file}")
        console(docker, "edge1", f"mkdir -p {other}; cat > {other}/{file} <<'X'\n{text}X")
    script = "/root/connect.py"
    console(docker, "edge1", f"cat > {script} <<'X'\n{CONNECT}X")
    said = {
        name: console(docker, "edge1", f"python3 {script} {addresses['app1']} {given} 2>&1 || true").strip()
        for name, given in {
            "own": "/etc/ssl/groundcrew/peer/fullchain.pem /etc/ssl/groundcrew/peer/privkey.pem",
            "of app2": f"{other}/fullchain.pem {other}/privkey.pem",
            "none": "'' ''",
            "plain": "plain plain",
        }.items()
    }
    console(docker, "edge1", f"rm -r {other} {script}")
    assert said.pop("own") == "HTTP/1.1 200"
    assert [name for name, text in said.items() if "HTTP/1.1 200" in text] == []


def test_nobody_but_the_web_server_gets_to_its_proxy(docker: DockerClient) -> None:
    """Catches a local user who passes by the web server's limits, or takes servers away."""
    for path in ("www/shop.sock", "admin.sock"):
        try_it = (
            f"setpriv --reuid=nobody --regid=nogroup --clear-groups socat -u OPEN:/dev/null UNIX-CONNECT:/run/haproxy/{path} 2>&1 || true"
        )
        assert "Permission denied" in console(docker, "edge1", try_it)


@pytest.mark.parametrize("fault", ["power", "proxy", "application"])
def test_an_application_host_lost_costs_what_is_in_flight(
    docker: DockerClient, addresses: dict[str, str], eventually: Any, fault: str
) -> None:
    """Catches requests that go to a host which does not answer, and a form that is sent to another one in vain."""
    with load(addresses["edge1"]) as answers:
        if fault == "power":
            docker.containers.get("groundcrew-edge-app1").kill()
        elif fault == "proxy":
            console(docker, "app1", "systemctl kill -s KILL haproxy; systemctl stop haproxy")
        else:
            # systemd keeps its socket, and starts it again
            console(docker, "app1", "systemctl kill -s KILL upstream.service")
        if fault != "application":
            eventually(lambda: states(docker, "edge1")["app1"].startswith("DOWN"), 10)
    if fault == "power":
        docker.containers.get("groundcrew-edge-app1").start()
    elif fault == "proxy":
        console(docker, "app1", "systemctl start haproxy")
    told = summary(answers)
    say(f"{fault} of an application host lost: {json.dumps(told)}")
    # The application's answers take milliseconds, so hardly any is in flight
    assert int(str(told["failed"])) <= 3
    assert float(str(told["longest"])) < 5


def test_a_planned_stop_fails_nothing(docker: DockerClient, addresses: dict[str, str]) -> None:
    """Catches a drained host that gets requests, one whose slow request is cut, and one that comes back before it answers."""
    with load(addresses["edge1"], 30) as answers, ThreadPoolExecutor(8) as pool:
        slow = [pool.submit(ask, addresses[edge], "/slow/3", 20) for edge in EDGES for _ in range(4)]
        play("drain", "app1")
        assert all(states(docker, edge)["app1"] == "MAINT" for edge in EDGES)
        assert {one.result()["host"] for one in slow} == set(APPS)
        assert {ask(addresses["edge2"])["host"] for _ in range(6)} == {"app2"}
        console(docker, "app1", "systemctl stop haproxy upstream.socket upstream.service; systemctl start upstream.socket haproxy")
        # It stays away over a reload
        console(docker, "edge1", "systemctl reload haproxy")
        assert {ask(addresses["edge1"])["host"] for _ in range(6)} == {"app2"}
        play("undrain", "app1")
    told = summary(answers)
    say(f"drained, stopped, started: {json.dumps(told)}")
    assert told["failed"] == 0


def test_a_stream_and_a_cookie_do_not_keep_a_host(docker: DockerClient, addresses: dict[str, str]) -> None:
    """Catches an upgrade that fails for a page somebody leaves open, and visitors who are sent to a host that is about to restart."""
    get = f"curl -s --unix-socket /run/haproxy/www/sticky.sock -b shop_server={sha256(b'app1').hexdigest()[:12]} http://localhost"
    assert json.loads(console(docker, "edge1", get))["host"] == "app1"
    console(docker, "edge1", f"systemd-run --unit=stream --collect {get}/slow/15")
    said = play("drain", "app1", app_name="sticky", drain_seconds=2)
    assert "edge1 still has 1 requests or streams open on app1 after 2 seconds" in " ".join(said.split())
    assert json.loads(console(docker, "edge1", get))["host"] == "app2"
    # What was open goes on
    console(docker, "edge1", "systemctl is-active stream")
    play("undrain", "app1", app_name="sticky")
    assert json.loads(console(docker, "edge1", get))["host"] == "app1"


def test_a_host_that_nobody_drains_any_more_is_asked_again(docker: DockerClient, addresses: dict[str, str]) -> None:
    """Catches a host that gets no requests for ever, after a run that was killed."""
    play("drain", "app1")
    said = play("ask_again", "web", "--check")
    assert all(changed(said, edge) > 0 for edge in EDGES)
    assert {states(docker, edge)["app1"] for edge in EDGES} == {"MAINT"}
    play("ask_again", "web")
    assert {states(docker, edge)["app1"].split()[0] for edge in EDGES} == {"UP"}
    said = play("ask_again", "web")
    assert [changed(said, edge) for edge in EDGES] == [0, 0]


def test_a_host_that_is_not_well_stays_away_until_it_is(docker: DockerClient, addresses: dict[str, str], eventually: Any) -> None:
    """Catches requests for a host that was left out for good reason, as it counts as well until its checks have failed."""
    play("drain", "app1")
    console(docker, "app1", "systemctl stop haproxy upstream.socket upstream.service")
    try:
        with load(addresses["edge1"], 30) as answers:
            play("ask_again", "web")
            assert {states(docker, edge)["app1"] for edge in EDGES} == {"DOWN"}
    finally:
        console(docker, "app1", "systemctl start upstream.socket haproxy")
    assert summary(answers)["failed"] == 0
    eventually(lambda: {states(docker, edge)["app1"].split()[0] for edge in EDGES} == {"UP"}, 20)


def test_a_reload_takes_a_new_port_and_keeps_who_is_out(docker: DockerClient, addresses: dict[str, str], eventually: Any) -> None:
    """Catches a server that is asked at its former port, or without TLS, since HAProxy remembers it so."""

    def row(edge: str) -> list[str]:
        said = console(docker, edge, "echo show servers state shop | socat - UNIX-CONNECT:/run/haproxy/admin.sock")
        (found,) = [line.split() for line in said.splitlines() if " app1 " in line]
        return [found[6], found[18], found[20]]

    server = f"    server app1 {addresses['app1']}"
    for edge in EDGES:  # HAProxy 3.0, and 2.6
        play("drain", "app1")
        console(docker, edge, "cp -p /etc/haproxy/haproxy.cfg /root/")
        for new, port, tls in (
            (f"{server}:8001 ", "8001", "1"),
            ("    server app1 unix@/run/none ", "0", "0"),
            (f"{server}:8000 ", "8000", "1"),
        ):
            console(docker, edge, f"sed -i 's,^    server app1 [^ ]* ,{new},' /etc/haproxy/haproxy.cfg")
            console(docker, edge, "sed -i '/unix@/s/ ssl .*//' /etc/haproxy/haproxy.cfg")
            if port == "8000":
                console(docker, edge, "mv /root/haproxy.cfg /etc/haproxy/haproxy.cfg")
            console(docker, edge, "systemctl reload haproxy")
            # Who has taken it out, its port, and whether TLS is spoken to it; the process before answers for another moment
            eventually(lambda edge=edge, now=["1", port, tls]: row(edge) == now, 10)
        play("undrain", "app1")


def test_the_proxy_does_not_read_the_keys_of_visitors(docker: DockerClient) -> None:
    """Catches an edge whose proxy may read more than its own certificate."""
    (pid,) = console(docker, "edge1", "pgrep -u haproxy -o haproxy").split()
    status = console(docker, "edge1", f"cat /proc/{pid}/status")
    groups = ",".join(next(line for line in status.splitlines() if line.startswith("Groups:")).split()[1:])
    as_it = f"setpriv --reuid=haproxy --regid=haproxy --groups={groups} test -r /etc/ssl/groundcrew/{{}}/privkey.pem && echo yes || echo no"
    assert [console(docker, "edge1", as_it.format(name)).strip() for name in ("default", "peer")] == ["no", "yes"]


def test_reloads_fail_nothing(docker: DockerClient, addresses: dict[str, str]) -> None:
    """Catches a new application host or certificate that costs requests."""
    with load(addresses["edge1"], 60) as answers:
        for _ in range(4):
            for name in ("edge1", "app1", "app2"):
                console(docker, name, "systemctl reload haproxy")
    told = summary(answers)
    say(f"12 reloads: {json.dumps(told)}")
    assert told["failed"] == 0


def test_a_broken_configuration_takes_nothing_down(docker: DockerClient, addresses: dict[str, str]) -> None:
    """Catches a reload that ends what runs before it has read what is new."""
    console(
        docker, "edge1", "cp -p /etc/haproxy/haproxy.cfg /root/ && echo nonsense >> /etc/haproxy/haproxy.cfg; ! systemctl reload haproxy"
    )
    assert ask(addresses["edge1"])["status"] == 200
    console(docker, "edge1", "mv /root/haproxy.cfg /etc/haproxy/haproxy.cfg && systemctl reload haproxy")


def test_a_visitor_stays_where_asked(docker: DockerClient) -> None:
    """Catches a cookie that keeps nobody, and one that nobody has asked for."""
    get = "curl -s -o /dev/null -D - --unix-socket /run/haproxy/www/{} {} http://localhost/ | tr -d '\\r' | sed -n 's/^set-cookie: \\([^;]*\\).*/\\1/ip'"
    assert console(docker, "edge1", get.format("shop.sock", "")) == ""
    cookie = console(docker, "edge1", get.format("sticky.sock", "")).strip()
    assert cookie.startswith("shop_server=")
    assert not any(name in cookie for name in APPS)
    said = console(
        docker,
        "edge1",
        f"for i in 1 2 3 4 5 6; do curl -s --unix-socket /run/haproxy/www/sticky.sock -b {cookie} http://localhost/; echo; done",
    )
    assert len({json.loads(line)["host"] for line in said.split("\n") if line}) == 1


class Watch:
    """Asks the address anew every tenth of a second, and knows the longest time without an answer."""

    def __init__(self, address: str) -> None:
        self.address, self.good, self.ended = address, [time.monotonic()], threading.Event()
        self.threads = [threading.Thread(target=self.look, daemon=True) for _ in range(12)]
        for number, thread in enumerate(self.threads):
            threading.Timer(number / 10, thread.start).start()

    def look(self) -> None:
        while not self.ended.wait(0.2):
            try:
                ask(self.address, timeout=1)
                self.good.append(time.monotonic())
            except (OSError, AssertionError, ValueError):
                continue

    def away(self) -> float:
        self.ended.set()
        moments = sorted([*self.good, time.monotonic()])
        return max(later - earlier for earlier, later in itertools.pairwise(moments))


@pytest.mark.parametrize("fault", ["host", "nginx", "keepalived"])
def test_the_address_moves_within_three_seconds(docker: DockerClient, addresses: dict[str, str], eventually: Any, fault: str) -> None:
    """Catches an address that stays with a host or a web server that is gone, and one that moves back when they are there again."""
    (active,) = holders(docker, addresses)
    (other,) = set(EDGES) - {active}
    watch = Watch(addresses["edge"])
    eventually(lambda: len(watch.good) > 10, 10)
    if fault == "host":
        docker.containers.get(f"groundcrew-edge-{active}").kill()
    elif fault == "nginx":
        # For good: no restart brings it back
        console(docker, active, "systemctl mask --runtime nginx; systemctl kill -s KILL nginx")
    else:
        console(docker, active, "systemctl stop keepalived")
    eventually(lambda: holders(docker, addresses) == [other], 10)
    before = len(watch.good)
    eventually(lambda: len(watch.good) > before + 10, 10)
    away = watch.away()
    say(f"{fault} of the active web server stopped: no answer for {away:.1f} s")
    if fault == "host":
        docker.containers.get(f"groundcrew-edge-{active}").start()
    elif fault == "nginx":
        console(docker, active, "systemctl unmask --runtime nginx; systemctl restart nginx")
    else:
        console(docker, active, "systemctl start keepalived")
    assert away <= 3
    # It is well again, and waits
    eventually(lambda: ask(addresses[active])["status"] == 200, 60)
    assert holders(docker, addresses) == [other]


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        *((name, "haproxy") for name in (*EDGES, *APPS)),
        *((name, unit) for name in EDGES for unit in ("keepalived", "groundcrew-edge-answers")),
    ],
)
def test_units_are_sandboxed(docker: DockerClient, name: str, unit: str) -> None:
    """Catches a service that may do more than it needs."""
    said = console(docker, name, f"systemd-analyze security --no-pager {unit}.service | tail -n 1")
    assert float(said.split("exposure level for")[1].split()[1]) <= 2.0


def test_what_is_not_wanted_any_more_is_taken_away(docker: DockerClient, addresses: dict[str, str], eventually: Any) -> None:
    """Catches an address that a web server keeps, and a proxy that goes on, once the inventory has neither. Last: it leaves less."""
    (active,) = holders(docker, addresses)
    (other,) = set(EDGES) - {active}
    for name, units, variables, file in (
        ("keepalived", ("keepalived", "groundcrew-edge-answers"), {"keepalived_addresses": []}, "main"),
        ("haproxy", ("haproxy",), {"haproxy_proxies": []}, "retire"),
    ):
        task = {"ansible.builtin.include_role": {"name": name, "tasks_from": file}}
        here = active if name == "keepalived" else other
        assert changed(run("retire", here, task, "--check", **variables), here) > 0
        assert console(docker, here, f"systemctl is-active {' '.join(units)}").split() == ["active"] * len(units)
        assert changed(run("retire", here, task, **variables), here) > 0
        for unit in units:
            assert console(docker, here, f"systemctl is-active {unit} || true").strip() in {"inactive", "failed"}
            console(docker, here, f"! systemctl is-enabled {unit}")
        assert changed(run("retire", here, task, **variables), here) == 0
        assert changed(run("retire", here, task, "--check", **variables), here) == 0
        # Nor does a boot start it
        console(docker, here, f"systemctl daemon-reload; systemctl start {units[0]}; ! systemctl is-active {units[0]}")
    eventually(lambda: holders(docker, addresses) == [other], 10)
    for name, here in (("keepalived", active), ("haproxy", other)):
        assert changed(run("again", here, {"ansible.builtin.include_role": {"name": name}}), here) > 0
