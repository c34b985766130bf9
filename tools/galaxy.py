"""The Ansible collections of requirements.yml: taken from where they already are, Galaxy only for those that are missing."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import yaml

from tools.console import LOGS, ROOT, Problem, run_command, run_logged, say

REQUIREMENTS = ROOT / "requirements.yml"
# Where ansible-galaxy installs to by default
USER_COLLECTIONS = Path.home() / ".ansible" / "collections" / "ansible_collections"


def version_number(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def fits(version: str, wanted: str) -> bool:
    """Does a version fit a range such as '>=4.8.0,<5'?"""
    have = version_number(version)
    tests = {
        ">=": have.__ge__,
        "<=": have.__le__,
        "==": have.__eq__,
        ">": have.__gt__,
        "<": have.__lt__,
    }
    for clause in wanted.split(","):
        operator, number = re.fullmatch(r"\s*(>=|<=|==|>|<)\s*([\d.]+)\s*", clause).groups()  # type: ignore[union-attr]
        bound = version_number(number)
        if not tests[operator](bound + (0,) * (3 - len(bound))):
            return False
    return True


def search_path() -> list[Path]:
    """The folders that ansible looks into: its own Python package's, and the user's."""
    spec = importlib.util.find_spec("ansible_collections")
    return [
        *(Path(place) for place in (spec.submodule_search_locations or [] if spec else [])),
        USER_COLLECTIONS,
    ]


def installed_version(name: str, folders: list[Path]) -> str | None:
    for folder in folders:
        manifest = folder / name.replace(".", "/") / "MANIFEST.json"
        if manifest.exists():
            return str(json.loads(manifest.read_text(encoding="utf-8"))["collection_info"]["version"])
    return None


def missing(folders: list[Path]) -> list[str]:
    """The collections that are not there in a version that fits."""
    wanted: list[dict[str, str]] = yaml.safe_load(REQUIREMENTS.read_text(encoding="utf-8"))["collections"]
    found = {item["name"]: installed_version(item["name"], folders) for item in wanted}
    return [item["name"] for item in wanted if (version := found[item["name"]]) is None or not fits(version, item.get("version", ">=0"))]


def ensure() -> str:
    """Make all collections be there; returns how they came to be there."""
    lacking = missing(search_path())
    if not lacking:
        return "there already"
    run_logged(
        [
            str(Path(sys.executable).parent / "ansible-galaxy"),
            "collection",
            "install",
            "-r",
            str(REQUIREMENTS),
        ],
        LOGS / "galaxy.log",
        remedy=f"Collections are missing: {', '.join(lacking)}, and Galaxy could not be used.\n"
        "The ansible package of requirements.lock carries them: rm -r .venv && make up",
    )
    if still := missing(search_path()):
        raise Problem(
            f"collections are missing: {', '.join(still)}",
            "Compare requirements.yml with: ansible-galaxy collection list",
        )
    return f"from Galaxy: {', '.join(lacking)}"


def main() -> int:
    say(f"Collections: {ensure()}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
