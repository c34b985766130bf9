#!/usr/bin/python
"""Complete an unpacked release on the host, and point `current` at one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_release
short_description: Install a release with no network, or switch to it
description:
  - A release is unpacked as C(releases/.ID.part). O(state=installed) gives it its virtual environment and renames it, so
    C(releases/ID) is whole whenever it exists. What an interrupted run left is made anew, and so is a release whose virtual
    environment does not run on the host's Python, as after an upgrade of the host.
  - O(state=current) swaps the link C(current) by a rename, and keeps C(previous). A release that was marked bad is tried again.
  - O(state=pruned) removes the oldest releases, and what interrupted runs left. It has its place after the gates of a release, for only
    then it is known what is good.
  - O(state=bad) leaves the reason in the release's folder, for it must not be gone back to. Where it is current and no slot serves it,
    what serves is current again; where it serves, nothing is done.
  - O(state=listed) tells which releases there are.
  - O(state=back) makes one current that was there before.
  - It waits where another step is at work in the same folder, also one of M(app_slot), as after a run that was killed.
options:
  root: {description: "Folder of the application, like /srv/textreport.", type: path, required: true}
  release: {description: "Id of the release; with O(state=back) empty for the newest good one before what serves.", type: str, default: ""}
  state: {description: What to do., type: str, choices: [installed, current, listed, back, bad, pruned], required: true}
  hosts:
    description: What O(state=listed) has told on each host, by its name; O(state=back) goes to a release that is good on all of them.
    type: dict
    default: {}
  reason: {description: "Why it is bad.", type: str, default: ""}
  migrations:
    description: Patterns of the files below a release's C(src) that are migrations.
    type: list
    elements: str
    default: []
  source_on_path: {description: "Put the source folder on Python's path, where it is not installed as a wheel.", type: bool, default: false}
  keep: {description: "Good releases to keep, beside two bad ones; what is current, previous or in a slot is always kept.", type: int, default: 5}
  python: {description: Interpreter of the virtual environment., type: path, default: /usr/bin/python3}
author: [Groundcrew]
"""
RETURN = r"""
there: {description: Whether the release is there already., returned: always, type: bool}
current: {description: Release that C(current) points to at the end., returned: always, type: str}
previous: {description: Release that C(previous) points to at the end., returned: always, type: str}
release: {description: The release that was asked for., returned: always, type: str}
migrations: {description: "Migrations of the release that was current, which the one asked for does not have.", returned: always, type: list, elements: str}
releases: {description: "Releases that are there, the one deployed last first.", returned: with O(state=listed), type: list, elements: str}
bad: {description: "Those that are marked bad, and why.", returned: with O(state=listed), type: dict}
serving: {description: Those that live slots run; without slots the current one., returned: with O(state=listed), type: list, elements: str}
removed: {description: Releases that were removed., returned: always, type: list, elements: str}
"""

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.app_releases import (
    ReleaseError,
    alone,
    clear_bad,
    in_use,
    is_bad,
    mark_bad,
    releases,
    select,
    serving,
    swap,
    target,
)
from ansible.module_utils.basic import AnsibleModule

KEPT_BAD = 2


def run(*command: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise ReleaseError(f"`{' '.join(command)}` ended with {done.returncode}:\n" + "\n".join(done.stdout.strip().splitlines()[-15:]))
    return done.stdout


def runs(venv: Path, python: str) -> bool:
    """Whether a virtual environment runs and is for this interpreter's minor version: with another one it finds no package."""
    try:
        minor = run(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
        found = run(str(venv / "bin/python"), "-I", "-c", "import pip; print(pip.__file__)").strip()
    except (ReleaseError, OSError):
        return False
    return os.path.realpath(found) == os.path.realpath(venv / f"lib/python{minor}/site-packages/pip/__init__.py")


def relocate(venv: Path, old: str, new: str) -> None:
    """A virtual environment knows its own path in its scripts and in pyvenv.cfg: give it the one it will have."""
    for path in [venv / "pyvenv.cfg", *(venv / "bin").iterdir()]:
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            changed = content.replace(old.encode(), new.encode())
            if changed != content:
                path.write_bytes(changed)


def install(root: Path, release: str, python: str, source_on_path: bool) -> None:
    final = root / "releases" / release
    part = root / "releases" / f".{release}.part"
    if not (part / "requirements.txt").is_file():
        raise ReleaseError(f"{part} holds no unpacked release")
    # Beside a release that serves: it goes first
    os.nice(10)
    venv = part / "venv"
    shutil.rmtree(venv, ignore_errors=True)
    run(python, "-m", "venv", str(venv))
    run(str(venv / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-cache-dir", "--no-deps",
        "--no-compile", "--require-hashes", "--find-links", str(part / "wheels"), "--requirement", str(part / "requirements.txt"))  # fmt: skip
    if source_on_path:
        packages = next(venv.glob("lib/python3.*/site-packages"))
        (packages / "source.pth").write_text(f"{final}/src\n", encoding="utf-8")
    relocate(venv, str(part), str(final))
    # Compiled with the paths they will have. The application cannot write its folder, so what is not compiled here is compiled
    # at every start. A file that does not compile may be a template or a test of its package: it is no reason to stop.
    subprocess.run(
        [str(venv / "bin/python"), "-m", "compileall", "-qq", "-j", "0", "-s", str(part), "-p", str(final), str(venv / "lib"), str(part / "src")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    shutil.rmtree(part / "wheels", ignore_errors=True)
    os.utime(part)
    os.sync()
    # One that is there did not run; where it is current, the newer link tells its units
    gone = root / "releases" / f".{release}.gone"
    shutil.rmtree(gone, ignore_errors=True)
    if final.exists():
        final.rename(gone)
    part.rename(final)
    if target(root / "current") == release:
        swap(root / "current", Path("releases", release))
    shutil.rmtree(gone, ignore_errors=True)


def switch(root: Path, release: str) -> None:
    """Deployed last is this one, and right before it what it takes over from, however many were deployed since that was and were left
    again. Where `current` never came to serve, as in a run that failed or was killed, that is the older one."""
    names = serving(root) | {target(root / "current")}
    outgoing = [path for path in releases(root) if path.name in names]
    now = time.time_ns()
    if outgoing:
        os.utime(outgoing[-1], ns=(now, now))
    os.utime(root / "releases" / release, ns=(now + 1, now + 1))
    clear_bad(root / "releases" / release)
    select(root, release)


def refuse(root: Path, release: str, reason: str) -> None:
    served = serving(root)
    if release in served:
        return
    if not is_bad(root / "releases" / release):
        mark_bad(root / "releases" / release, reason)
    good = [path.name for path in releases(root) if path.name in served]
    if good and target(root / "current") == release:
        select(root, good[0])


def listed(root: Path) -> dict[str, Any]:
    found = releases(root)
    bad = {path.name: (path / "bad").read_text(encoding="utf-8").strip().rpartition("\n")[2] for path in found if is_bad(path)}
    return {"releases": [path.name for path in found], "bad": bad, "serving": sorted(serving(root) or {target(root / "current")} - {""})}


def candidates(host: Mapping[str, Any]) -> list[str]:
    """What a host may go back to, the newest first: what is good, and no newer than anything it serves."""
    names = host["releases"]
    oldest = max((names.index(name) for name in host["serving"] if name in names), default=0)
    return [name for name in names[oldest:] if name not in host["bad"]]


def way_back(hosts: Mapping[str, Mapping[str, Any]]) -> str:
    """The newest release that all hosts may go back to. What all of them serve is left; where a run that failed or was killed left them
    apart, they first come together again."""
    served = {name for host in hosts.values() for name in host["serving"]}
    common = set.intersection(*(set(candidates(host)) for host in hosts.values()))
    for name in candidates(next(iter(hosts.values()))):
        if name in common and served != {name}:
            return str(name)
    known = "; ".join(
        f"on {host} are: {', '.join(name + (' (bad)' if name in found['bad'] else '') for name in found['releases']) or 'none'}"
        for host, found in hosts.items()
    )
    raise ReleaseError(f"there is no good release before {' and '.join(sorted(served)) or 'the first'}; {known}")


def check_good(release: str, hosts: Mapping[str, Mapping[str, Any]]) -> None:
    for host, found in hosts.items():
        if release not in found["releases"]:
            raise ReleaseError(f"it is not on {host}; there are: {', '.join(found['releases']) or 'none'}")
        if release in found["bad"]:
            raise ReleaseError(f"on {host} it is marked bad; name another one, or deploy it again. {found['bad'][release]}")


def prune(root: Path, keep: int) -> list[str]:
    """Remove the oldest releases, each renamed first, and what interrupted runs left."""
    removed = []
    found, used = releases(root), in_use(root)
    # Those that failed are kept apart, for study: they must not crowd out the ones to go back to
    kept = [path for path in found if not is_bad(path)][:keep] + [path for path in found if is_bad(path)][:KEPT_BAD]
    for path in found:
        if path in kept or path.name in used:
            continue
        removed.append(path.name)
        path.rename(path.with_name(f".{path.name}.gone"))
    for path in (root / "releases").glob(".*"):
        if path.suffix in {".part", ".gone"}:
            shutil.rmtree(path, ignore_errors=True)
    return removed


def migrations(root: Path, release: str, patterns: list[str]) -> set[str]:
    source = root / "releases" / release / "src"
    return {str(path.relative_to(source)) for pattern in patterns for path in source.glob(pattern)} if release else set()


def apply(given: dict[str, Any], check: bool) -> dict[str, Any]:
    with alone(Path(given["root"])):
        return step(given, check)


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    root, release, state = Path(given["root"]), str(given["release"]), given["state"]
    before = target(root / "current")
    hosts: Mapping[str, Mapping[str, Any]] = {}
    if state == "back":
        hosts = given["hosts"] or {"this host": listed(root)}
        release = release or way_back(hosts)
    if state not in {"listed", "pruned"} and (not release or "/" in release or release.startswith(".")):
        raise ReleaseError("that is no id of a release")
    result: dict[str, Any] = {"changed": False, "removed": [], "release": release}
    there = (root / "releases" / release).is_dir()
    newer = sorted(migrations(root, before, given["migrations"]) - migrations(root, release, given["migrations"]))
    if state == "installed":
        there = there and runs(root / "releases" / release / "venv", given["python"])
        result["changed"] = not there
        if not there and not check:
            install(root, release, given["python"], given["source_on_path"])
    elif state == "listed":
        result.update(listed(root))
    elif state == "pruned":
        result["removed"] = [] if check else prune(root, given["keep"])
        result["changed"] = bool(result["removed"])
    elif state == "bad":
        if there and not check:
            refuse(root, release, given["reason"])
    elif state == "back":
        check_good(release, hosts)
        result["changed"] = before != release
        if before != release and not check:
            select(root, release)
    elif before != release or is_bad(root / "releases" / release):
        result["changed"] = True
        if not check:
            if not there:
                raise ReleaseError(f"{root}/releases/{release} is not there")
            switch(root, release)
    links = {"current": target(root / "current"), "previous": target(root / "previous")}
    return {**result, **links, "there": there, "migrations": newer}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "release": {"type": "str", "default": ""},
            "state": {"type": "str", "choices": ["installed", "current", "listed", "back", "bad", "pruned"], "required": True},
            "hosts": {"type": "dict", "default": {}},
            "reason": {"type": "str", "default": ""},
            "migrations": {"type": "list", "elements": "str", "default": []},
            "source_on_path": {"type": "bool", "default": False},
            "keep": {"type": "int", "default": 5},
            "python": {"type": "path", "default": "/usr/bin/python3"},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    try:
        module.exit_json(**apply(module.params, module.check_mode))
    except (ReleaseError, OSError) as error:
        named = f"Release {module.params['release']}: " if module.params["release"] else ""
        module.fail_json(msg=f"{named}{error}")


if __name__ == "__main__":
    main()
