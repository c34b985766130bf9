"""Run all linters side by side: a line each with its time, and the output of those that find something."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from tools.console import CACHE, ROOT, Problem, duration, run_command, say

BIN = Path(sys.executable).parent
APP = ROOT / "app"
# What make writes, and what is not ours to lint; git is not asked, it refuses a checkout of another owner
GENERATED = {".git", ".venv", ".venv-app", ".venv-audit", ".local", ".cache", ".ca", ".vault", ".ansible", "__pycache__"}
# They are about mistyped names, and hold texts in many languages
NO_SPELL_CHECK = ("bad_input.py", "test_role_variables.py", "ordinary.yml", "attacks.yml")
# False alarms that somebody has looked at; more of them: detect-secrets scan --baseline .secrets.baseline
BASELINE = ROOT / ".secrets.baseline"
# Files of a service's own language; also the .gitlab-ci.yml that the example is copied to
SCHEMAS = {"github-workflows": ".github/workflows/*.yml", "gitlab-ci": "*gitlab-ci*.yml"}
# Encrypted or made of hashes: a search for high entropy finds nothing else there; and forms with passwords that are made up
NO_SECRETS_SCAN = (".lock", "vault.yml", "example-vault-password.txt", ".secrets.baseline", "tests/waf/ordinary.yml")


@dataclass(frozen=True)
class Linter:
    """A linter's name, its command, where it runs, and environment variables of its own."""

    name: str
    command: list[str]
    folder: Path = ROOT
    environment: dict[str, str] = field(default_factory=dict)
    good: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Result:
    """What a linter has said."""

    name: str
    code: int
    seconds: float
    output: str


def files(root: Path = ROOT) -> Iterator[Path]:
    """The files of the repository."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in GENERATED and not name.endswith((".egg-info", "_cache")))
        yield from (Path(folder) / name for name in sorted(names) if not (Path(folder) / name).is_symlink())


def is_shell(path: Path) -> bool:
    if path.suffix == ".sh":
        return True
    if path.suffix:
        return False
    with path.open("rb") as content:
        first = content.readline(80)
    return first.startswith(b"#!") and any(word in first for word in (b"/sh", b"/bash", b"env sh", b"env bash"))


def relative(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def syntax_checks() -> Iterator[Linter]:
    """site.yml read with each inventory. Vaults stay closed: tests/test_example_inventories.py opens the published ones."""
    for hosts in sorted(ROOT.glob("inventories/*/hosts.yml")):
        yield Linter(
            f"syntax ({hosts.parent.name})",
            [str(BIN / "ansible-playbook"), "--syntax-check", "-i", str(hosts.parent), "site.yml"],
            environment={"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        )


def schema_checks(everything: list[Path], root: Path = ROOT) -> Iterator[Linter]:
    """The files of each pattern against their service's schema; a pattern without files would be a check that nobody misses."""
    for schema, pattern in SCHEMAS.items():
        workflows = [str(path) for path in (path.relative_to(root) for path in everything) if path.match(pattern)]
        if not workflows:
            raise Problem(f"{schema}: no file is named {pattern}", "Correct SCHEMAS in tools/lint.py, or take the line out")
        yield Linter(schema, [str(BIN / "check-jsonschema"), "--builtin-schema", f"vendor.{schema}", *workflows])


def linters() -> list[Linter]:
    """All linters for which there is something to lint; the slowest first."""
    everything = list(files())
    spelled = [path for path in everything if path.suffix != ".lock" and path.name not in NO_SPELL_CHECK]
    chosen = [
        Linter("ansible-lint", [str(BIN / "ansible-lint"), "--offline", "-q", "--nocolor"]),
        Linter("mypy", [str(BIN / "mypy")]),
        *syntax_checks(),
        Linter("yamllint", [str(BIN / "yamllint"), "--strict", "."]),
        Linter("ruff check", [str(BIN / "ruff"), "check", "--quiet", "."]),
        Linter("ruff format", [str(BIN / "ruff"), "format", "--quiet", "--check", "."]),
        Linter("codespell", [str(BIN / "codespell"), *relative(spelled)]),
        Linter("roles", [sys.executable, "-m", "tools.roles", "check"]),
    ]
    if shell := [path for path in everything if is_shell(path)]:
        chosen.append(Linter("shellcheck", [str(BIN / "shellcheck"), *relative(shell)]))
    if (APP / "pyproject.toml").exists():
        chosen.append(Linter("mypy (app)", [str(ROOT / ".venv-app/bin/mypy"), "--strict"], APP))
    if BASELINE.exists():
        scanned = [path for path in everything if not str(path).endswith(NO_SECRETS_SCAN)]
        # On a copy: the hook notes where a known line has moved to, and ends with 3 then
        copy = CACHE / BASELINE.name
        CACHE.mkdir(exist_ok=True)
        shutil.copyfile(BASELINE, copy)
        command = [str(BIN / "detect-secrets-hook"), "--baseline", str(copy), *relative(scanned)]
        chosen.append(Linter("detect-secrets", command, good=(0, 3)))
    chosen += schema_checks(everything)
    if (ROOT / ".pre-commit-config.yaml").exists():
        chosen.append(Linter("pre-commit", [str(BIN / "pre-commit"), "validate-config"]))
    return chosen


def run(linter: Linter) -> Result:
    begin = time.monotonic()
    environment = {**os.environ, **linter.environment}
    try:
        done = subprocess.run(
            linter.command,
            check=False,
            cwd=linter.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        return Result(linter.name, 127, time.monotonic() - begin, f"{error}\nmake lint sets up what it needs")
    return Result(linter.name, 0 if done.returncode in linter.good else done.returncode, time.monotonic() - begin, done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="LINTER", help="default: all")
    names = parser.parse_args().names
    chosen = [linter for linter in linters() if not names or linter.name in names]
    if unknown := set(names) - {linter.name for linter in chosen}:
        raise Problem(f"no linter {', '.join(sorted(unknown))}", f"Choose from: {', '.join(item.name for item in linters())}")
    begin = time.monotonic()
    failed = []
    with ThreadPoolExecutor(max_workers=(os.cpu_count() or 1) + 1) as pool:
        for future in as_completed([pool.submit(run, linter) for linter in chosen]):
            result = future.result()
            say(f"{'failed' if result.code else 'ok':<7} {result.name:<20} {duration(result.seconds):>8}")
            if result.code:
                failed.append(result.name)
                say(result.output.rstrip() + "\n")
    if failed:
        say(f"Again, only those: python -m tools.lint {' '.join(repr(name) for name in failed)}")
    say(f"lint: {len(chosen) - len(failed)} passed, {len(failed)} failed in {duration(time.monotonic() - begin)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
