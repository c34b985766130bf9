"""Keep what a role says about itself the same everywhere: defaults, argument_specs and README.

python -m tools.roles check    fails where they differ, one line a problem
python -m tools.roles docs     writes the variables' part of each README from meta/argument_specs.yml
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parent.parent / "roles"
BEGIN, END = "<!-- BEGIN_ANSIBLE_DOCS -->", "<!-- END_ANSIBLE_DOCS -->"


class DocsError(Exception):
    """A README that cannot be generated."""


def load(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def undescribed(options: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Names of the options, and options within options, that have no description."""
    for name, option in options.items():
        if not option.get("description"):
            yield f"{prefix}{name}"
        yield from undescribed(option.get("options") or {}, f"{prefix}{name}.")


def compare(defaults: Mapping[str, Any], options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong between defaults/main.yml and the options of argument_specs.yml: the file to change, and why."""
    for name in defaults:
        if name not in options:
            yield "meta/argument_specs.yml", f"{name} has a default and no specification"
    for name, option in options.items():
        if option.get("required"):
            if name in defaults:
                yield "defaults/main.yml", f"{name} is required, so it must have no default"
            if "default" in option:
                yield "meta/argument_specs.yml", f"{name} is required, so it must state no default"
        elif name not in defaults:
            yield "defaults/main.yml", f"{name} is specified as optional and has no default"
        elif "default" in option and (option["default"] != defaults[name] or type(option["default"]) is not type(defaults[name])):
            hint = "; leave a computed default out, and say in the description what it is" if "{{" in str(defaults[name]) else ""
            yield "meta/argument_specs.yml", f"{name} has the default {defaults[name]!r}, and {option['default']!r} is stated{hint}"


def generate(role: Path) -> str:
    """The README as it would be after `aar-doc <role> markdown`."""
    from aar_doc.cli import app  # its import takes longer than all else here, and only the README needs it

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "roles", role.name)
        shutil.copytree(role / "meta", copy / "meta")
        readme = role / "README.md"
        (copy / "README.md").write_text(readme.read_text(encoding="utf-8") if readme.exists() else f"{BEGIN}\n{END}\n", "utf-8")
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                status = app(args=[str(copy), "markdown"], standalone_mode=False)
        except Exception as error:  # whatever it cannot read: named with the role
            raise DocsError(f"aar-doc fails: {error}") from error
        if status or said.getvalue():
            raise DocsError(f"aar-doc fails: {' '.join(said.getvalue().split()) or status}")
        return (copy / "README.md").read_text(encoding="utf-8")


def check(role: Path) -> Iterator[str]:
    """Every problem of a role, as `file: message`."""
    specs = load(role / "meta/argument_specs.yml").get("argument_specs") or {}
    if "main" not in specs:
        yield f"{role / 'meta/argument_specs.yml'}: there is no entry point main"
        return
    for file, message in compare(load(role / "defaults/main.yml"), specs["main"].get("options") or {}):
        yield f"{role / file}: {message}"
    for name, entry_point in specs.items():
        for option in undescribed(entry_point.get("options") or {}):
            yield f"{role / 'meta/argument_specs.yml'}: {option} of entry point {name} has no description"
    readme = role / "README.md"
    if not readme.exists():
        yield f"{readme}: it is missing"
        return
    try:
        if generate(role) != readme.read_text(encoding="utf-8"):
            yield f"{readme}: its variables are not those of meta/argument_specs.yml; run `make docs`"
    except DocsError as error:
        yield f"{readme}: {error}"


def write(role: Path) -> bool:
    """Write a role's README; whether it changed."""
    readme = role / "README.md"
    new = generate(role)
    if readme.exists() and readme.read_text(encoding="utf-8") == new:
        return False
    readme.write_text(new, encoding="utf-8")
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.roles", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["check", "docs"])
    parser.add_argument("role", nargs="*", help="names of roles; all when none is given")
    parser.add_argument("--roles-path", type=Path, default=ROLES, help="the folder that holds the roles")
    options = parser.parse_args(arguments)

    folder = options.roles_path.resolve()
    folder = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    roles = [folder / name for name in options.role] or sorted(path for path in folder.iterdir() if path.is_dir())
    failed = False
    for role in roles:
        if not role.is_dir():
            parser.error(f"there is no role {role.name} in {folder}")
        if options.command == "check":
            for problem in check(role):
                print(problem)
                failed = True
            continue
        try:
            if write(role):
                print(f"{role / 'README.md'}: written")
        except DocsError as error:
            print(f"{role / 'README.md'}: {error}")
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
