#!/usr/bin/python
"""Build the release of a Python web application on the controller: one archive with its source and every wheel it needs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_artifact
short_description: Build a release archive of a Python web application
description:
  - Runs on the controller. The release id is a hash of the source's files and of the options that decide the build, so an
    unchanged source gives the archive that is there already, without calling pip.
  - Dependencies are fetched as wheels for the host's Python and architecture. What has no wheel is built in a container of
    the image I(build_image), without a network. Where there is no engine, RV(ignore:pending) names a folder to build on a host.
options:
  source: {description: Folder or git URL., type: str, required: true}
  ref: {description: "Branch, tag or commit to build; for a folder, its files as they are when empty.", type: str, default: ""}
  requirements: {description: "Requirements file in the source; when empty requirements.lock, else requirements.txt.", type: str, default: ""}
  package: {description: Build and install the source's own wheel., type: str, choices: [auto, wheel, path], default: auto}
  static_folder: {description: Folder in the source whose files get compressed copies., type: str, default: ""}
  static_command: {description: "What fills that folder on a host; then the source need not hold it.", type: str, default: ""}
  python: {description: "The host's Python version, like 3.13.5.", type: str, required: true}
  architecture: {description: "The host's architecture, like x86_64.", type: str, required: true}
  glibc: {description: "The oldest C library of the hosts, like 2.36.", type: str, default: "2.36"}
  build_image: {description: Image of the host's release for dependencies without a wheel., type: str, default: ""}
  build_packages: {description: Debian packages that such a build takes., type: list, elements: str, default: []}
  cache: {description: "Folder for archives and wheels; ~/.cache/groundcrew when empty.", type: str, default: ""}
  keep: {description: Archives to keep in the cache., type: int, default: 20}
author: [Groundcrew]
"""
RETURN = r"""
release: {description: The release id., returned: always, type: str}
archive: {description: The archive., returned: always, type: str}
key: {description: "Python and architecture of the archive, like cp313-x86_64.", returned: always, type: str}
commit: {description: The commit that was built where a ref or URL was given., returned: always, type: str}
package: {description: Whether the source is installed as a wheel., returned: always, type: bool}
pending: {description: Folder with sources that must be built on a host; empty when the archive is complete., returned: always, type: str}
"""

import contextlib
import fcntl
import gzip
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.app_source import BuildError, digest, fetch, find_requirements, is_package, list_files, mode_of
from ansible.module_utils.app_static_files import compressed, content_time
from ansible.module_utils.app_wheels import (
    Target,
    build_in_container,
    built_wheel,
    collect,
    default_cache,
    download,
    own_wheel,
    requirement_line,
    stage,
)
from ansible.module_utils.basic import AnsibleModule


class Archive:
    """A tar.gz whose bytes follow from its contents alone."""

    def __init__(self, tar: tarfile.TarFile, top: str) -> None:
        self.tar = tar
        self.top = top

    @classmethod
    @contextlib.contextmanager
    def create(cls, path: Path, top: str) -> Iterator[Archive]:
        with (
            path.open("wb") as raw,
            gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as zipped,
            tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            yield cls(tar, top)

    def add(self, name: str, content: bytes, mode: int = 0o644, mtime: int | None = None) -> None:
        info = tarfile.TarInfo(f"{self.top}/{name}")
        info.size, info.mode, info.mtime = len(content), mode, content_time(content) if mtime is None else mtime
        self.tar.addfile(info, io.BytesIO(content))

    def link(self, name: str, target: str) -> None:
        info = tarfile.TarInfo(f"{self.top}/{name}")
        info.type, info.linkname = tarfile.SYMTYPE, target
        self.tar.addfile(info)


def write_archive(path: Path, release: str, folder: Path, names: list[str], static: str, wheels: list[Path]) -> None:
    part = path.with_name(f".{path.name}.part")
    with Archive.create(part, f".{release}.part") as archive:
        archive.add("release.env", f"RELEASE_ID={release}\n".encode())
        archive.add("requirements.txt", "".join(f"{requirement_line(wheel)}\n" for wheel in wheels).encode())
        if static:
            archive.link("static", f"src/{static}")
        for name in names:
            file = folder / name
            if file.is_symlink():
                archive.link(f"src/{name}", os.readlink(file))
                continue
            content = file.read_bytes()
            archive.add(f"src/{name}", content, mode_of(file))
            if static and name.startswith(f"{static}/"):
                for suffix, copy in compressed(name, content).items():
                    if f"{name}{suffix}" not in names:
                        archive.add(f"src/{name}{suffix}", copy, mtime=content_time(content))
        for wheel in wheels:
            archive.add(f"wheels/{wheel.name}", wheel.read_bytes())
    part.rename(path)


def prune(folder: Path, keep: int) -> None:
    archives = sorted(folder.glob("*.tar.gz"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in archives[max(keep, 1) :]:
        old.unlink(missing_ok=True)


def build(given: dict[str, Any], check: bool) -> dict[str, Any]:
    cache = Path(os.path.expanduser(given["cache"] or default_cache())).absolute()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # hosts of one play ask at the same time: one fetches and builds, the others find it done
        return build_alone(given, check, cache)


def build_alone(given: dict[str, Any], check: bool, cache: Path) -> dict[str, Any]:
    target = Target(given["python"], given["architecture"], given["glibc"])
    folder, commit = fetch(given["source"], given["ref"], cache)
    if not folder.is_dir():
        raise BuildError(f"app_source {given['source']!r} is no folder on the controller")
    names = list_files(folder)
    requirements = find_requirements(folder, given["requirements"])
    package = is_package(folder) if given["package"] == "auto" else given["package"] == "wheel"
    static = given["static_folder"].strip("/")
    if static and not given["static_command"] and not (folder / static).is_dir():
        raise BuildError(f"app_static_folder is {static!r}, but {folder} has no such folder")
    options = {"requirements": requirements, "package": package, "static": static}
    if given["static_command"]:
        options["static_command"] = given["static_command"]
    release = digest(folder, names, options)
    path = cache / "artifacts" / f"{release}-{target.tag}.tar.gz"
    result: dict[str, Any] = {
        "changed": False, "release": release, "archive": str(path), "key": target.tag, "commit": commit, "package": package,
        "pending": "", "warnings": [],
    }  # fmt: skip
    if path.exists():
        os.utime(path)
        return result
    result["changed"] = True
    if check:
        return result
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        fetched, hashed = download(folder, requirements, target, cache, release)
        if not hashed:
            result["warnings"].append(
                f"{requirements} holds no hashes: this release is pinned to what was fetched now, the next may differ"
            )
        sdists = sorted(file for file in fetched.iterdir() if file.suffix != ".whl")
        missing = [sdist for sdist in sdists if not built_wheel(sdist, target, cache)]
        if missing:
            staged = stage(missing, target, cache)
            collect(staged, target, cache)
            if not all(built_wheel(sdist, target, cache) for sdist in missing):
                reason = build_in_container(staged, given["build_image"], given["build_packages"], target)
                if reason:
                    result["pending"] = str(staged)
                    result["reason"] = reason
                    return result
                collect(staged, target, cache)
            shutil.rmtree(staged)
        wheels = sorted(fetched.glob("*.whl")) + [wheel for sdist in sdists if (wheel := built_wheel(sdist, target, cache))]
        if package:
            copy = Path(temporary, "source")
            for name in names:
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(folder / name, copy / name, follow_symlinks=False)
            wheels.append(own_wheel(copy, Path(temporary), release))
        write_archive(path, release, folder, names, static, wheels)
        prune(path.parent, given["keep"])
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "str", "required": True},
            "ref": {"type": "str", "default": ""},
            "requirements": {"type": "str", "default": ""},
            "package": {"type": "str", "choices": ["auto", "wheel", "path"], "default": "auto"},
            "static_folder": {"type": "str", "default": ""},
            "static_command": {"type": "str", "default": ""},
            "python": {"type": "str", "required": True},
            "architecture": {"type": "str", "required": True},
            "glibc": {"type": "str", "default": "2.36"},
            "build_image": {"type": "str", "default": ""},
            "build_packages": {"type": "list", "elements": "str", "default": []},
            "cache": {"type": "str", "default": ""},
            "keep": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    try:
        result = build(module.params, module.check_mode)
    except (BuildError, OSError) as error:
        module.fail_json(msg=f"The release could not be built: {error}")
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
