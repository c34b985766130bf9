"""The release id, the archive and the switch, each on a small tree of files."""

from __future__ import annotations

import io
import multiprocessing
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import app_source, app_wheels
from ansible.module_utils.app_releases import ReleaseError

from plugins.modules import app_artifact, app_release

GIVEN = {
    "ref": "", "requirements": "", "package": "auto", "static_folder": "", "static_command": "", "python": "3.13.5", "architecture": "x86_64",
    "glibc": "2.36", "build_image": "", "build_packages": [], "keep": 20,
}  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "static").mkdir(parents=True)
    (folder / "app.py").write_text("app = 1\n")
    (folder / "static/site.css").write_text("body { margin: 0 }\n" * 100)
    (folder / "requirements.txt").write_text("flask==3.1.2\n")
    return folder


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for pip: one wheel appears, and the calls are kept."""
    calls: list[str] = []

    def pip_download(into: Path, target: app_wheels.Target, arguments: list[str], cwd: Path | None = None) -> None:
        calls.append(" ".join(arguments))
        (into / "flask-3.1.2-py3-none-any.whl").write_bytes(b"wheel")

    monkeypatch.setattr(app_wheels, "pip_download", pip_download)
    return calls


def build(source: Path | str, tmp_path: Path, **changes: Any) -> dict[str, Any]:
    return app_artifact.build({**GIVEN, "source": str(source), "cache": str(tmp_path / "cache"), **changes}, check=False)


def release_id(folder: Path) -> str:
    return str(app_source.digest(folder, app_source.list_files(folder), {}))


@pytest.mark.parametrize("change", ["content", "mode", "name", "new", "gone"])
def test_every_change_of_the_source_gives_another_id(source: Path, change: str) -> None:
    before = release_id(source)
    file = source / "app.py"
    match change:
        case "content":
            file.write_text("app = 2\n")
        case "mode":
            file.chmod(0o755)
        case "name":
            file.rename(source / "main.py")
        case "new":
            (source / "empty.py").touch()
        case _:
            file.unlink()
    assert release_id(source) != before


@pytest.mark.parametrize(
    "name", [".git/config", ".venv/bin/python", "a/__pycache__/b.pyc", "node_modules/x.js", ".env", "x.egg-info/PKG-INFO"]
)
def test_what_is_no_source_does_not_count(source: Path, name: str) -> None:
    before = release_id(source)
    (source / name).parent.mkdir(parents=True, exist_ok=True)
    (source / name).write_text("x")
    os.utime(source / "app.py", (0, 0))
    assert release_id(source) == before


def test_a_git_folder_a_ref_and_its_url_give_one_id(source: Path, tmp_path: Path, downloads: list[str]) -> None:
    plain = build(source, tmp_path)["release"]
    app_source.run(["sh", "-c", "git init -q . && git add . && git -c user.name=x -c user.email=x@example.com commit -qm x"], cwd=source)
    (source / ".gitignore").write_text("ignored\n")
    (source / ".git/info/exclude").write_text(".gitignore\n")
    (source / "ignored").write_text("x")
    assert {plain} == {
        build(source, tmp_path)["release"],
        build(source, tmp_path, ref="HEAD")["release"],
        build(f"file://{source}", tmp_path, ref="HEAD")["release"],
    }
    with pytest.raises(app_source.BuildError, match="no branch, tag or commit"):
        build(source, tmp_path, ref="nowhere")


def test_hosts_that_ask_at_the_same_time_share_one_clone(source: Path, tmp_path: Path, downloads: list[str]) -> None:
    app_source.run(["sh", "-c", "git init -q . && git add . && git -c user.name=x -c user.email=x@example.com commit -qm x"], cwd=source)
    with multiprocessing.get_context("fork").Pool(4) as hosts:
        built = hosts.starmap(build, [(f"file://{source}", tmp_path)] * 4, chunksize=1)
    assert [host["changed"] for host in built].count(True) == 1
    assert len({host["archive"] for host in built}) == 1


def test_a_link_out_of_the_source_is_refused(source: Path) -> None:
    (source / "outside").symlink_to("/etc/passwd")
    with pytest.raises(app_source.BuildError, match="outside of the source folder"):
        release_id(source)


def test_an_unchanged_source_is_found_built(source: Path, tmp_path: Path, downloads: list[str]) -> None:
    first, second = build(source, tmp_path), build(source, tmp_path)
    assert (first["changed"], second["changed"]) == (True, False)
    assert first["archive"] == second["archive"]
    assert len(downloads) == 1


def test_a_changed_source_fetches_nothing_again_and_both_pythons_share_an_id(source: Path, tmp_path: Path, downloads: list[str]) -> None:
    first = build(source, tmp_path)
    other = build(source, tmp_path, python="3.11.2")
    assert (first["release"], first["key"], other["key"]) == (other["release"], "cp313-x86_64", "cp311-x86_64")
    (source / "app.py").write_text("app = 2\n")
    assert build(source, tmp_path)["release"] != first["release"]
    assert len(downloads) == 2


def test_the_archive_follows_from_its_contents_alone(source: Path, tmp_path: Path, downloads: list[str]) -> None:
    first = Path(build(source, tmp_path, static_folder="static")["archive"])
    content = first.read_bytes()
    first.unlink()
    os.utime(source / "app.py", (1, 1))
    assert Path(build(source, tmp_path, static_folder="static")["archive"]).read_bytes() == content
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        release = first.name.split("-")[0]
        names = {name.removeprefix(f".{release}.part/") for name in tar.getnames()}
        assert {
            "release.env",
            "requirements.txt",
            "static",
            "src/app.py",
            "src/static/site.css.gz",
            "wheels/flask-3.1.2-py3-none-any.whl",
        } <= names
        assert {member.uid for member in tar.getmembers()} == {0}
        file = tar.extractfile(f".{release}.part/requirements.txt")
        assert file is not None
        assert file.read().startswith(b"flask==3.1.2 --hash=sha256:")


def test_hashes_are_required_where_there_are_any(source: Path, tmp_path: Path, downloads: list[str]) -> None:
    assert build(source, tmp_path)["warnings"]
    (source / "requirements.lock").write_text("flask==3.1.2 --hash=sha256:00\n")
    assert not build(source, tmp_path)["warnings"]
    assert downloads == ["-r requirements.txt", "--no-deps --require-hashes -r requirements.lock"]


def test_a_source_distribution_waits_for_a_host_where_there_is_no_container(
    source: Path, tmp_path: Path, downloads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pip_download(into: Path, target: app_wheels.Target, arguments: list[str], cwd: Path | None = None) -> None:
        if "-r" in arguments:
            with tarfile.open(into / "old-1.0.tar.gz", "w:gz") as tar:
                tar.addfile(tarfile.TarInfo("old-1.0/setup.py"))

    monkeypatch.setattr(app_wheels, "pip_download", pip_download)
    pending = Path(build(source, tmp_path)["pending"])
    assert {path.name for path in pending.iterdir()} == {"sdist", "build", "out", "build.sh"}
    (pending / "out/old-1.0.tar.gz").mkdir()
    (pending / "out/old-1.0.tar.gz/old-1.0-cp313-cp313-linux_x86_64.whl").write_bytes(b"built")
    done = build(source, tmp_path)
    assert done["pending"] == ""
    with tarfile.open(done["archive"]) as tar:
        assert any(name.endswith("wheels/old-1.0-cp313-cp313-linux_x86_64.whl") for name in tar.getnames())


def test_missing_files_say_what_to_do(source: Path, tmp_path: Path) -> None:
    with pytest.raises(app_source.BuildError, match="app_static_folder"):
        build(source, tmp_path, static_folder="nowhere")
    with pytest.raises(app_source.BuildError, match=r"app_requirements is 'other\.txt'"):
        build(source, tmp_path, requirements="other.txt")
    (source / "requirements.txt").unlink()
    with pytest.raises(app_source.BuildError, match="uv pip compile"):
        build(source, tmp_path)


def test_wheels_are_for_the_host_and_not_the_controller() -> None:
    options = " ".join(app_wheels.Target("3.13.5", "aarch64", "2.36").options())
    assert "--python-version 3.13" in options
    assert "--abi cp313" in options
    assert "--platform manylinux_2_36_aarch64" in options
    assert "manylinux_2_37" not in options


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, name in enumerate(["a", "b", "c", "d"]):
        (tmp_path / "releases" / name).mkdir(parents=True)
        os.utime(tmp_path / "releases" / name, (number, number))
    return tmp_path


def switch(root: Path, release: str, check: bool = False) -> dict[str, Any]:
    return app_release.apply({"root": str(root), "release": release, "state": "current", "migrations": []}, check)


def prune(root: Path, keep: int, check: bool = False) -> list[str]:
    done = app_release.apply({"root": str(root), "release": "", "state": "pruned", "keep": keep, "migrations": []}, check)
    assert done["changed"] == bool(done["removed"])
    return sorted(done["removed"])


def test_a_switch_keeps_the_release_before_and_removes_nothing(root: Path) -> None:
    """Catches a release that is removed before the new one has shown that it works."""
    switch(root, "a")
    done = switch(root, "b")
    assert (done["current"], done["previous"]) == ("b", "a")
    assert sorted(os.listdir(root / "releases")) == ["a", "b", "c", "d"]
    assert os.readlink(root / "current") == "releases/b"


def test_a_switch_to_the_current_release_or_in_check_mode_changes_nothing(root: Path) -> None:
    switch(root, "a")
    assert not switch(root, "a")["changed"]
    assert switch(root, "b", check=True)["current"] == "a"


def test_a_switch_to_a_missing_release_is_refused(root: Path) -> None:
    with pytest.raises(ReleaseError):
        switch(root, "nowhere")


def test_pruning_counts_good_releases_and_leaves_what_is_in_use(root: Path) -> None:
    """Catches failed releases that crowd out those to go back to, and the live, the previous or a slot's release being removed."""
    for number, name in enumerate(["e", "f", "g", "h", "i"], 4):
        (root / "releases" / name).mkdir()
        os.utime(root / "releases" / name, (number, number))
    for name in ("g", "h", "i"):
        (root / "releases" / name / "bad").touch()
        os.utime(root / "releases" / name, (9, 9 + ord(name)))
    (root / "releases/.x.part").mkdir()
    (root / "current").symlink_to("releases/b")
    (root / "previous").symlink_to("releases/a")
    (root / "web/blue").mkdir(parents=True)
    (root / "web/blue/release").symlink_to(root / "releases/c")
    assert prune(root, 2, check=True) == []
    assert prune(root, 2) == ["d", "g"]
    assert sorted(os.listdir(root / "releases")) == ["a", "b", "c", "e", "f", "h", "i"]
    assert prune(root, 2) == []


def test_a_virtual_environment_gets_its_final_path(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/alembic").write_text("#!/srv/x/releases/.1.part/venv/bin/python\n")
    (tmp_path / "pyvenv.cfg").write_text("command = python -m venv /srv/x/releases/.1.part/venv\n")
    app_release.relocate(tmp_path, "/srv/x/releases/.1.part", "/srv/x/releases/1")
    assert (tmp_path / "bin/alembic").read_text() == "#!/srv/x/releases/1/venv/bin/python\n"
    assert ".part" not in (tmp_path / "pyvenv.cfg").read_text()


def install(root: Path, check: bool = False) -> dict[str, Any]:
    part = root / "releases/.a.part"
    if not check:
        part.mkdir(parents=True)
        (part / "requirements.txt").touch()
    given = {"root": str(root), "release": "a", "state": "installed", "python": sys.executable, "source_on_path": False, "migrations": []}
    return dict(app_release.apply(given, check))


def test_a_release_that_does_not_run_is_made_anew_and_its_units_told(tmp_path: Path) -> None:
    install(tmp_path)
    switch(tmp_path, "a")
    link, venv = tmp_path / "current", tmp_path / "releases/a/venv"
    os.utime(link, (1, 1), follow_symlinks=False)
    packages = next(venv.glob("lib/python3.*"))
    packages.rename(venv / "lib/python3.1")  # as after an upgrade of the host: bin/python is a newer Python now
    assert install(tmp_path, check=True)["changed"]
    (venv / "lib/python3.1").rename(packages)
    assert not install(tmp_path, check=True)["changed"]
    (venv / "bin/python").unlink()
    assert install(tmp_path)["changed"]
    app_source.run([str(link / "venv/bin/python"), "-c", "import pip"])
    assert link.lstat().st_mtime > 1
    assert os.listdir(tmp_path / "releases") == ["a"]
