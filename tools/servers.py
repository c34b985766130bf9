"""Write the tables of docs/servers.md from what the role knows of each application server: python -m tools.servers"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from tools.console import ROOT, run_command, say

ROLE = ROOT / "roles/gunicorn"
DOCS = ROOT / "docs/servers.md"
# Each is a small application of the scenario servers, under every server of its kind
FRAMEWORKS = {"Flask": "wsgi", "Django (WSGI)": "wsgi", "Django (ASGI)": "asgi", "FastAPI": "asgi"}
# What a server may know, in the words of the table
KNOWN = {
    "workers": "processes",
    "threads": "threads",
    "timeout": "ends a request that hangs",
    "max_requests": "replaces its processes",
    "preload": "preloads",
    "access_log": "access log",
}


@dataclass(frozen=True)
class Choice:
    """A server as an inventory chooses it: what it is called, the variables, and what the role knows of it."""

    server: str
    worker_class: str
    interfaces: tuple[str, ...]
    packages: tuple[str, ...]
    forwarded: bool

    @property
    def title(self) -> str:
        return f"{self.server} {self.worker_class}".strip()

    @property
    def variables(self) -> dict[str, str]:
        """What an inventory sets for it."""
        return {"gunicorn_server": self.server, **({"gunicorn_worker_class": self.worker_class} if self.worker_class else {})}


@functools.cache
def load() -> dict[str, Any]:
    """The servers and gunicorn's worker classes, as they stand in the role's data."""
    data = yaml.safe_load((ROLE / "vars/main/servers.yml").read_text(encoding="utf-8"))
    return {"servers": data["__gunicorn_servers"], "classes": data["__gunicorn_worker_classes"]}


def choices() -> list[str]:
    """The servers that an inventory may name."""
    specs = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text(encoding="utf-8"))
    return list(specs["argument_specs"]["main"]["options"]["gunicorn_server"]["choices"])


def chosen() -> Iterator[Choice]:
    """Every server, and gunicorn with each of its classes; not a command, which may be anything."""
    for name, server in load()["servers"].items():
        if name == "command":
            continue
        if name != "gunicorn":
            yield Choice(name, "", tuple(server["interfaces"]), (server["package"],), server["forwarded"])
            continue
        for way, found in load()["classes"].items():
            yield Choice(name, way, tuple(found["interfaces"]), tuple(found["packages"]), found["forwarded"])


def combinations(interface: str) -> list[Choice]:
    """What an application of a kind runs under."""
    return [choice for choice in chosen() if interface in choice.interfaces]


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def yes(answer: bool) -> str:
    return "yes" if answer else "no"


def combinations_table() -> str:
    lines = [row("`gunicorn_server`", "`gunicorn_worker_class`", "in the requirements", *FRAMEWORKS), "|" + "---|" * (3 + len(FRAMEWORKS))]
    for one in chosen():
        runs = ["yes" if interface in one.interfaces else "refused" for interface in FRAMEWORKS.values()]
        lines.append(row(f"`{one.server}`", f"`{one.worker_class}`" if one.worker_class else "", ", ".join(one.packages), *runs))
    return "\n".join(lines)


def differences_table() -> str:
    head = ["`gunicorn_server`", "socket", *KNOWN.values(), "ends running requests on a stop", "reads X-Forwarded-Proto"]
    lines = [row(*head), "|" + "---|" * len(head)]
    for name, server in load()["servers"].items():
        socket = {"systemd": "systemd's", "own": "its own"}.get(server["socket"], "as the command says")
        knows = [yes(variable in server["knows"]) for variable in KNOWN]
        of_command = ["as it does", "as it does"] if name == "command" else [yes(server["ends"]), yes(server["forwarded"])]
        lines.append(row(f"`{name}`", socket, *knows, *of_command))
    return "\n".join(lines)


def documented() -> str:
    """The page with its tables as they should be."""
    text = DOCS.read_text(encoding="utf-8")
    for name, table in {"combinations": combinations_table(), "differences": differences_table()}.items():
        begin, end = f"<!-- {name}: written by make docs -->\n", f"<!-- end of {name} -->"
        text = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _, new=f"{begin}{table}\n{end}": new, text, flags=re.DOTALL)  # type: ignore[misc]
    return text


def main() -> int:
    new = documented()
    if new != DOCS.read_text(encoding="utf-8"):
        DOCS.write_text(new, encoding="utf-8")
        say(f"{DOCS.relative_to(ROOT)}: written")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
