"""Where an application's source comes from, which files it holds, and the release id they give."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tomllib
from collections.abc import Mapping
from pathlib import Path

# Never part of a release, also where no .gitignore says so. .env holds secrets, and a release is world-readable.
EXCLUDED = {
    ".git", ".hg", ".svn", ".venv", "venv", ".env", "__pycache__", "node_modules", ".tox", ".nox",
    ".mypy_cache", ".pytest_cache", ".ruff_cache", ".idea", ".vscode", ".DS_Store",
}  # fmt: skip
EXCLUDED_SUFFIXES = (".pyc", ".pyo", ".egg-info")
REQUIREMENTS = ("requirements.lock", "requirements.txt")
# Part of every id: raise it when the same source must give a new release because the way of building has changed
BUILD_FORMAT = 1


class BuildError(Exception):
    """What went wrong, said for the operator."""


def run(command: list[str], cwd: str | Path | None = None, env: Mapping[str, str] | None = None, shown: str = "") -> str:
    """Run a command and return what it printed; where it fails, its last lines are the error."""
    try:
        done = subprocess.run(command, cwd=cwd, env=dict(os.environ, **(env or {})), capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"{command[0]} could not be started: {error}") from error
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()
        lines = [line for line in lines if not line.startswith(("WARNING: ", "ERROR: Ignored the following"))] or lines
        raise BuildError(f"`{shown or ' '.join(command)}` ended with {done.returncode}:\n" + "\n".join(lines[-15:]))
    return done.stdout


def git(*arguments: str, cwd: str | Path | None = None) -> str:
    # A checkout of another user is no danger here: no hook and no filter of it runs
    return run(["git", "-c", "safe.directory=*", *arguments], cwd=cwd, env={"GIT_TERMINAL_PROMPT": "0"})


def is_url(source: str) -> bool:
    return bool(re.match(r"(?:https?|ssh|git|file)://|[\w.-]+@[\w.-]+:", source))


def fetch(source: str, ref: str, cache: Path) -> tuple[Path, str]:
    """Return the folder to build from, and the commit where a git reference was asked for."""
    if not is_url(source) and not ref:
        return Path(source).resolve(), ""
    prefix = ""
    if is_url(source):
        repository = cache / "git" / hashlib.sha256(source.encode()).hexdigest()[:16]
        if not (repository / "HEAD").exists():
            repository.parent.mkdir(parents=True, exist_ok=True)
            part = repository.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            git("clone", "--quiet", "--mirror", source, str(part))
            part.rename(repository)
        elif not (re.fullmatch(r"[0-9a-f]{40}", ref) and _commit(repository, ref)):
            git("fetch", "--quiet", "--prune", "origin", cwd=repository)
    else:
        repository = Path(source).resolve()
        prefix = git("rev-parse", "--show-prefix", cwd=repository).strip()
    commit = _commit(repository, ref or "HEAD")
    if not commit:
        raise BuildError(f"app_ref {ref!r} is no branch, tag or commit of {source}")
    folder = cache / "sources" / hashlib.sha256(f"{commit}:{prefix}".encode()).hexdigest()[:16]
    if not folder.exists():
        part = folder.with_suffix(f".{os.getpid()}.part")
        part.mkdir(parents=True)
        archive = part.with_suffix(".tar")
        git("archive", "--format=tar", f"--output={archive}", f"{commit}:{prefix}", cwd=repository)
        # Python 3.11.2, which is Debian 12's, knows no filters
        if hasattr(tarfile, "tar_filter"):
            shutil.unpack_archive(archive, part, "tar", filter="tar")
        else:
            shutil.unpack_archive(archive, part, "tar")
        archive.unlink()
        part.rename(folder)
    return folder, commit


def _commit(repository: Path, ref: str) -> str:
    try:
        return git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}", cwd=repository).strip()
    except BuildError:
        return ""


def excluded(name: str) -> bool:
    return any(part in EXCLUDED or part.endswith(EXCLUDED_SUFFIXES) for part in Path(name).parts)


def list_files(folder: Path) -> list[str]:
    """Names of the files that make up the source: what git knows or would add, else everything that is not excluded."""
    names: set[str] = set()
    try:
        listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=folder).split("\0")
        in_git = any(listed)
    except BuildError:
        in_git = False
    if in_git:
        for name in filter(None, listed):
            path = folder / name
            if path.is_dir() and not path.is_symlink():  # a submodule
                names.update(f"{name.rstrip('/')}/{child}" for child in _walk(path))
            elif os.path.lexists(path):
                names.add(name)
    else:
        names.update(_walk(folder))
    return sorted(name for name in names if not excluded(name))


def _walk(folder: Path) -> list[str]:
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not excluded(name)]
        links = [name for name in folders if os.path.islink(os.path.join(root, name))]
        found += [os.path.relpath(os.path.join(root, name), folder) for name in files + links]
    return found


def mode_of(path: Path) -> int:
    return 0o755 if path.stat().st_mode & 0o111 else 0o644


def digest(folder: Path, names: list[str], options: Mapping[str, object]) -> str:
    """The release id: names, modes and contents of the files, and the options that decide what is built from them."""
    total = hashlib.sha256(json.dumps([BUILD_FORMAT, options], sort_keys=True).encode())
    for name in names:
        path = folder / name
        if path.is_symlink():
            target = os.readlink(path)
            if not (path.parent / target).resolve().is_relative_to(folder.resolve()):
                raise BuildError(f"{path} is a link to {target}, outside of the source folder: a release must hold all of its files")
            kind, content = "link", target.encode()
        else:
            kind, content = oct(mode_of(path)), path.read_bytes()
        total.update(f"{name}\0{kind}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()[:16]


def find_requirements(folder: Path, wanted: str) -> str:
    for name in [wanted] if wanted else REQUIREMENTS:
        if (folder / name).is_file():
            return name
    if wanted:
        raise BuildError(f"app_requirements is {wanted!r}, but {folder} has no such file")
    raise BuildError(
        f"{folder} has neither {' nor '.join(REQUIREMENTS)}: name the file in app_requirements, or make one with "
        "`uv pip compile --universal --generate-hashes -o requirements.lock pyproject.toml`"
    )


def is_package(folder: Path) -> bool:
    """Whether the source says how a wheel is built from it; [project] alone does not."""
    pyproject = folder / "pyproject.toml"
    if pyproject.is_file():
        try:
            if "build-system" in tomllib.loads(pyproject.read_text(encoding="utf-8")):
                return True
        except tomllib.TOMLDecodeError as error:
            raise BuildError(f"{pyproject} is not valid TOML: {error}") from error
    return (folder / "setup.py").is_file()
