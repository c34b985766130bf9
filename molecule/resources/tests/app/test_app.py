"""What the role app promises: seen from a process of the application, and through a history of releases."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("as_root")

Deploy = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[4]
HOME = "/srv/textreport"
SECRET = "planted-app-secret-2f8c41"


def in_unit(host: Any, script: str, app: str = "textreport") -> Any:
    """Run Python in a unit of the application: its user, sandbox and environment."""
    python = f"/srv/{app}/current/venv/bin/python"
    return host.run("systemd-run --wait --pipe --collect --quiet --unit=%s-probe %s -c %s", app, python, script)


def name_of(host: Any) -> str:
    return str(host.ansible.get_variables()["inventory_hostname"])


# Each host goes through a history of its own
@pytest.fixture(scope="module")
def source(host: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(ROOT / "molecule/app/hello", tmp_path_factory.mktemp("source") / "hello"))


@pytest.fixture(scope="module")
def deploy(converge: Any, source: Path) -> Deploy:
    """Return a function that deploys the plain application to the host, by variables alone."""

    def run(**variables: Any) -> subprocess.CompletedProcess[str]:
        given = {
            "app_name": "hello", "app_source": str(source), "app_wsgi_target": "app:app", "app_static_folder": "static",
            "app_migrate_command": "",
        }  # fmt: skip
        done: subprocess.CompletedProcess[str] = converge(**{**given, **variables})
        return done

    return run


@pytest.fixture(scope="module")
def first(deploy: Deploy) -> subprocess.CompletedProcess[str]:
    return deploy()


@pytest.fixture(scope="module")
def second(source: Path, deploy: Deploy, first: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    app = source / "app.py"
    app.write_text(app.read_text().replace('"hello"', '"welcome"'))
    return deploy()


@pytest.fixture(scope="module")
def broken(source: Path, deploy: Deploy, second: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    app = source / "app.py"
    app.write_text(app.read_text().replace('"welcome"', '"third"'))
    return deploy(app_migrate_command="echo this migration is broken; exit 3")


@pytest.fixture(scope="module")
def healed(host: Any, deploy: Deploy, broken: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """What an interrupted install and an interrupted migration leave, and then the run after it."""
    with host.sudo():
        host.check_output(
            "cd /srv/hello/releases && new=$(ls -t | head -1) && mv $new .$new.part && rm -r .$new.part/venv/bin .$new.part/src/app.py"
            " && mkdir -p .$new.part/venv/bin && touch .$new.part/venv/bin/python"
            " && systemd-run --collect --unit=hello-migrate sh -c 'sleep 45; echo first >> /srv/hello/shared/order'"
        )
    return deploy(app_migrate_command="echo second >> /srv/hello/shared/order")


def greeting(host: Any) -> str:
    return str(in_unit(host, "import app; print(app.GREETING)", "hello").stdout.strip())


def test_application_imports_its_package_and_dependencies(host: Any) -> None:
    """Catches wheels for a wrong Python, a missing dependency, and a sandbox that keeps a compiled module from loading."""
    done = in_unit(host, "import textreport, flask, sqlalchemy, celery, psycopg, redis; print(psycopg.pq.__impl__, textreport.__file__)")
    assert done.rc == 0, done.stderr
    assert done.stdout.startswith(f"binary {HOME}/current/venv/"), done.stdout


def test_application_gets_its_environment_unchanged(host: Any) -> None:
    """Catches wrong quoting of newlines, quotes, dollars, backquotes and backslashes, and a release without its id."""
    done = in_unit(host, "import os; print([os.environ[n] for n in ('PLAIN', 'PLANTED', 'RELEASE_ID')])")
    release = host.file(f"{HOME}/current").linked_to.rsplit("/", 1)[1]
    assert done.stdout.strip() == str(['it\'s $5 `x` "q" \\ and\na second line', SECRET, release])


def test_application_cannot_write_its_code_but_its_shared_folder(host: Any) -> None:
    """Catches a release that a broken-into application could change."""
    script = """
import os, pathlib
for place in ('current/src', 'current/venv', 'releases', 'shared', ''):
    try:
        pathlib.Path('/srv/textreport', place, 'x').write_text('x')
        print(place, 'written')
    except OSError as error:
        print(place, 'refused')
"""
    assert in_unit(host, script).stdout.split("\n")[:5] == [
        "current/src refused", "current/venv refused", "releases refused", "shared written", " refused",
    ]  # fmt: skip
    assert host.run("runuser -u textreport -- touch %s/current/src/x %s/current/venv/x", HOME, HOME).rc != 0


def test_nobody_but_root_reads_the_environment_file(host: Any) -> None:
    """Catches secrets that the application's user, or any other, can read from disk."""
    for user in ("textreport", "nobody"):
        assert host.run("runuser -u %s -- cat /etc/textreport/environment", user).rc != 0
    assert SECRET in host.file("/etc/textreport/environment").content_string
    assert host.run("grep -rlF %s /srv /etc/systemd /run/systemd --exclude-dir=credentials", SECRET).stdout == ""


def test_user_cannot_log_in(host: Any) -> None:
    """Catches an application user with a shell or a password."""
    user = host.user("textreport")
    assert (user.shell, user.password) in {("/usr/sbin/nologin", "!"), ("/usr/sbin/nologin", "!*")}


def test_units_score_at_most_two(host: Any, exposure: Any) -> None:
    """Catches a setting that one release's systemd does not know, or a sandbox that has become weaker."""
    host.run("systemd-run --quiet --collect --unit=textreport-score sleep 60")
    try:
        assert exposure("textreport-score.service") <= 2.0
    finally:
        host.run("systemctl stop textreport-score")


def test_migration_runs_once_a_run_for_all_hosts(host: Any) -> None:
    """Catches a migration on every host, in a check run, as another user, or not in the second run, when the database may be another."""
    hosts = sorted(host.backend.get_hosts("all", ansible_inventory=os.environ["MOLECULE_INVENTORY_FILE"]))
    file = host.file(f"{HOME}/shared/migrated")
    assert (file.content_string.split() if file.exists else []) == (["textreport"] * 2 if name_of(host) == hosts[0] else [])


def test_static_files_stand_with_compressed_copies(host: Any) -> None:
    """Catches a static folder that the web server cannot read, or whose compressed copies differ."""
    static = f"{HOME}/current/static"
    assert host.run("runuser -u www-data -- zcat %s/style.css.gz | cmp - %s/style.css", static, static).rc == 0
    assert host.file(f"{static}/style.css").mtime == host.file(f"{static}/style.css.gz").mtime


def test_plain_application_is_deployed_by_variables_alone(host: Any, first: subprocess.CompletedProcess[str]) -> None:
    """Catches a role that needs a package or hashes, and a dependency that has no wheel and is not built."""
    assert first.returncode == 0, first.stdout
    done = in_unit(host, "import app, crcmod._crcfunext; print(app.app.test_client().get('/').text)", "hello")
    assert done.rc == 0, done.stderr
    assert done.stdout.split()[1].isdigit()


def test_second_release_is_current_and_keeps_the_first(host: Any, second: subprocess.CompletedProcess[str]) -> None:
    """Catches a switch that does not happen, and a way back that is gone."""
    assert second.returncode == 0, second.stdout
    current, previous = (host.file(f"/srv/hello/{link}").linked_to for link in ("current", "previous"))
    assert current != previous
    assert host.file(f"{previous}/src/app.py").contains('"hello"')
    assert host.file(f"{current}/src/app.py").contains('"welcome"')


@pytest.mark.one_release
def test_failing_migration_leaves_the_old_release(host: Any, broken: subprocess.CompletedProcess[str]) -> None:
    """Catches a host that switches to a release whose migration failed, and a failure that does not say why."""
    assert broken.returncode != 0
    assert "this migration is broken" in broken.stdout
    assert greeting(host) == "welcome"


@pytest.mark.one_release
def test_half_made_install_is_healed(host: Any, healed: subprocess.CompletedProcess[str]) -> None:
    """Catches a run that takes what an interrupted one left for a release, or stumbles over it."""
    assert healed.returncode == 0, healed.stdout
    assert greeting(host) == "third"
    # None is removed yet: that is for the end of a release
    assert host.run("ls -A /srv/hello/releases | wc -l").stdout.strip() == "3"


@pytest.mark.one_release
def test_migration_of_a_killed_run_is_waited_for(host: Any, healed: subprocess.CompletedProcess[str]) -> None:
    """Catches a run that stops at a migration that still runs, or migrates beside it."""
    assert "RETRYING" in healed.stdout, "the left migration had ended before the run came to it"
    assert host.file("/srv/hello/shared/order").content_string.split() == ["first", "second"]


@pytest.mark.one_release
@pytest.mark.usefixtures("healed")
def test_release_without_its_python_is_made_anew(host: Any, deploy: Deploy) -> None:
    """Catches a release that is taken for whole by its folder, when an upgrade of the host took its Python away."""
    host.check_output("cd /srv/hello/current/venv/lib && mv python3* python3.1")
    done = deploy()
    assert done.returncode == 0, done.stdout
    assert greeting(host) == "third"
