"""Wheels for the host's Python, made on the controller by its own pip, so that the operator's pip settings hold."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.app_source import BuildError, run

# pip evaluates environment markers for the Python that runs it, whatever --python-version says, and runs foreign code (the
# build backend) to read a source distribution's metadata. This runs pip with the target's markers, and with the metadata
# that a source distribution carries in PKG-INFO: what is fetched here is built on the target's release, never here.
PIP = """
import email, json, pathlib, shutil, sys
from pip._vendor.packaging import markers
from pip._internal.cli import cmdoptions
from pip._internal.cli.main import main
from pip._internal.distributions.sdist import SourceDistribution
target = json.loads(sys.argv[1])
own = markers.default_environment
markers.default_environment = lambda: {**own(), **target}
cmdoptions.check_dist_restriction = lambda *args, **kwargs: None
def prepare(self, *args, **kwargs):
    source = pathlib.Path(self.req.unpacked_source_directory) / "PKG-INFO"
    info = email.message_from_bytes(source.read_bytes())
    folder = pathlib.Path(self.req.unpacked_source_directory) / f"{info['Name'].replace('-', '_')}-{info['Version']}.dist-info"
    folder.mkdir(exist_ok=True)
    shutil.copy(source, folder / "METADATA")
    self.req.metadata_directory = str(folder)
SourceDistribution.prepare_distribution_metadata = prepare
sys.exit(main(sys.argv[2:]))
"""
# Run in a container or on a host of the target's release, in a folder with sdist/ and build/; leaves out/<sdist>/<wheel>
BUILD_SCRIPT = """set -eu
python3 -m venv venv
for sdist in sdist/*; do
  SOURCE_DATE_EPOCH=315532800 venv/bin/python -m pip wheel --quiet --disable-pip-version-check --no-index --find-links build \\
    --no-deps --use-pep517 --wheel-dir "out/${sdist##*/}" "$sdist"
done
"""
DOCKER_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Target:
    """The Python and machine that the wheels are for."""

    python: str
    architecture: str
    glibc: str

    @property
    def minor(self) -> str:
        return ".".join(self.python.split(".")[:2])

    @property
    def tag(self) -> str:
        return f"cp{self.minor.replace('.', '')}-{self.architecture}"

    def markers(self) -> dict[str, str]:
        return {
            "implementation_name": "cpython",
            "implementation_version": self.python,
            "os_name": "posix",
            "platform_machine": self.architecture,
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "python_full_version": self.python,
            "python_version": self.minor,
            "sys_platform": "linux",
        }

    def options(self) -> list[str]:
        """pip options: every manylinux platform up to the host's C library, newest first, and the old names of three."""
        newest = int(self.glibc.split(".")[1])
        platforms = [f"manylinux_2_{minor}" for minor in range(newest, 4, -1)] + ["manylinux2014", "manylinux2010", "manylinux1", "linux"]
        options = ["--implementation", "cp", "--python-version", self.minor]
        for abi in (f"cp{self.minor.replace('.', '')}", "abi3", "none"):
            options += ["--abi", abi]
        for platform in platforms:
            options += ["--platform", f"{platform}_{self.architecture}"]
        return options


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def complete(folder: Path) -> Path:
    """An empty folder beside this one, to be renamed to it once it is filled."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    return part


def pip_download(into: Path, target: Target, arguments: list[str], cwd: Path | None = None) -> None:
    run(
        [sys.executable, "-c", PIP, json.dumps(target.markers()), "download", "--quiet", "--disable-pip-version-check",
         "--prefer-binary", "--dest", str(into), *target.options(), *arguments],
        cwd=cwd,
        shown=f"pip download {' '.join(arguments)}",
    )  # fmt: skip


def download(folder: Path, requirements: str, target: Target, cache: Path, salt: str) -> tuple[Path, bool]:
    """Fetch what the requirements file names, once: a changed source with the same requirements fetches nothing."""
    text = (folder / requirements).read_text(encoding="utf-8")
    hashed = "--hash=" in text
    # A file that includes others is only as constant as the whole source
    key = text + target.tag + target.glibc + (salt if re.search(r"^\s*(-r|-c|--requirement|--constraint)", text, re.MULTILINE) else "")
    wheels = cache / "wheels" / hashlib.sha256(key.encode()).hexdigest()[:16]
    if not wheels.exists():
        part = complete(wheels)
        # A hashed file is whole by definition: pip needs not, and must not, look for more
        pip_download(part, target, [*(["--no-deps", "--require-hashes"] if hashed else []), "-r", requirements], cwd=folder)
        part.rename(wheels)
    return wheels, hashed


def build_requirements(sdist: Path) -> list[str]:
    """What the build backend of a source distribution needs."""
    content = None
    if sdist.suffix == ".zip":
        with zipfile.ZipFile(sdist) as zipped:
            name = next((name for name in zipped.namelist() if re.fullmatch(r"[^/]+/pyproject\.toml", name)), None)
            content = zipped.read(name) if name else None
    else:
        with tarfile.open(sdist) as tar:
            for member in tar:
                if re.fullmatch(r"(\./)?[^/]+/pyproject\.toml", member.name):
                    file = tar.extractfile(member)
                    content = file.read() if file else None
                    break
    system = tomllib.loads(content.decode()).get("build-system", {}) if content else {}
    return [str(item) for item in system.get("requires", ["setuptools", "wheel"])]


def built_wheel(sdist: Path, target: Target, cache: Path) -> Path | None:
    return next(iter(sorted(_built(sdist, target, cache).glob("*.whl"))), None)


def _built(sdist: Path, target: Target, cache: Path) -> Path:
    return cache / "built" / f"{sha256(sdist)[:16]}-{target.tag}"


def stage(sdists: Iterable[Path], target: Target, cache: Path) -> Path:
    """A folder with everything that building these takes, so that the place where it happens needs no package index."""
    sdists = sorted(sdists)
    name = hashlib.sha256("".join(f"{sha256(path)}{target.tag}" for path in sdists).encode()).hexdigest()[:16]
    folder = cache / "unbuilt" / name
    if not folder.exists():
        part = complete(folder)
        for sub in ("sdist", "build", "out"):
            (part / sub).mkdir()
        for sdist in sdists:
            shutil.copy(sdist, part / "sdist")
            pip_download(part / "build", target, ["--only-binary=:all:", *build_requirements(sdist)])
        (part / "build.sh").write_text(BUILD_SCRIPT, encoding="utf-8")
        part.rename(folder)
    return folder


def collect(folder: Path, target: Target, cache: Path) -> None:
    """Keep the wheels that a build left in out/, each under the hash of its source distribution."""
    for sdist in (folder / "sdist").iterdir():
        wheels = list((folder / "out" / sdist.name).glob("*.whl"))
        kept = _built(sdist, target, cache)
        if wheels and not kept.exists():
            part = complete(kept)
            shutil.copy(wheels[0], part)
            part.rename(kept)


def engine_answers() -> bool:
    if not shutil.which("docker"):
        return False
    try:
        return bool(run(["docker", "version", "--format", "{{.Server.Version}}"]).strip())
    except BuildError:
        return False


def build_in_container(folder: Path, image: str, packages: list[str], target: Target) -> str:
    """Build in a container of this image; returns why there can be none, or nothing. A failing build is an error."""
    if not image:
        return "app_build_image is empty"
    if not engine_answers():
        return "the controller has no Docker engine that answers"
    try:
        run(["docker", "image", "inspect", image])
    except BuildError:
        try:
            run(["docker", "pull", "--quiet", image])
        except BuildError as error:
            return f"the image {image} is neither here nor can it be pulled: {error}"
    machine, identity = run(["docker", "image", "inspect", "--format", "{{.Architecture}} {{.Id}}", image]).split()
    if machine != DOCKER_ARCHITECTURE.get(target.architecture, target.architecture):
        return f"the image {image} is for {machine}, the host is {target.architecture}"
    builder = f"groundcrew-build:{hashlib.sha256(json.dumps([identity, packages]).encode()).hexdigest()[:16]}"
    try:
        run(["docker", "image", "inspect", builder])
    except BuildError:
        context = complete(folder.with_suffix(".image"))
        install = f"apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends {' '.join(packages)}"
        (context / "Dockerfile").write_text(f"FROM {image}\nRUN {install}\n", encoding="utf-8")
        run(["docker", "build", "--quiet", "--tag", builder, str(context)])
        shutil.rmtree(context)
    # The container has no network: what it may use was fetched, and its folder is copied, so the engine may be elsewhere
    container = run(["docker", "create", "--network", "none", "--workdir", "/build", builder, "sh", "build.sh"]).strip()
    try:
        run(["docker", "cp", f"{folder}/.", f"{container}:/build"])
        run(["docker", "start", "--attach", container])
        run(["docker", "cp", f"{container}:/build/out/.", str(folder / "out")])
    finally:
        run(["docker", "rm", "--force", container])
    return ""


def own_wheel(folder: Path, into: Path, release: str) -> Path:
    """Build the source's own wheel from a copy of it. Only pure Python: it is built by the controller's interpreter."""
    env = {"SOURCE_DATE_EPOCH": "315532800", "SETUPTOOLS_SCM_PRETEND_VERSION": f"0+{release}", "PYTHONDONTWRITEBYTECODE": "1"}
    run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "--ignore-requires-python",
         "--wheel-dir", str(into), str(folder)],
        env=env,
    )  # fmt: skip
    wheel = next(into.glob("*.whl"))
    if not wheel.name.endswith("-none-any.whl"):
        raise BuildError(
            f"{wheel.name} has compiled parts: publish it as a dependency, or set app_package to path to run from the source folder"
        )
    return wheel


def requirement_line(wheel: Path) -> str:
    name, version = wheel.name.split("-")[:2]
    return f"{name.replace('_', '-').lower()}=={version} --hash=sha256:{sha256(wheel)}"


def default_cache() -> str:
    return os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "groundcrew")
