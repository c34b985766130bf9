"""What role hardening promises, on hosts that its scenario has converged."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import yaml

Converge = Callable[..., Any]
PROFILE = Path(__file__).with_name("lynis.prf")
DEFAULTS = yaml.safe_load(
    (Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / "roles/hardening/defaults/main.yml").read_text(encoding="utf-8")
)
OFF: dict[str, Any] = {
    **{name: False for name, value in DEFAULTS.items() if value is True},
    **{f"hardening_{names}": [] for names in ("unneeded_packages", "unneeded_units", "modules")},
    "hardening_idle_timeout": 0,
}
# Dies of a signal that dumps core, with as large a dump as the hard limit allows, and says whether it was one
DIE = """
import os, resource, signal
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
read, write = os.pipe()
child = os.fork()
if not child:
    os.execv("/var/tmp/setuid-sleep", ["sleep", "60"])
os.close(write)
os.read(read, 1)  # ends when the program has taken the place of this one
os.kill(child, signal.SIGSEGV)
status = os.waitpid(child, 0)[1]
print(os.WTERMSIG(status) == signal.SIGSEGV, os.WCOREDUMP(status))
"""


@pytest.fixture
def someone(host: Any) -> Generator[str]:
    """A user that is new on the host."""
    host.run_expect([0], "sudo useradd --create-home --shell /bin/bash someone")
    yield "someone"
    host.run("sudo userdel --remove --force someone")


def test_lynis_finds_a_hardened_host(host: Any) -> None:
    """Catches a part of the hardening that is written and does not hold: Debian's Lynis asks the host itself."""
    host.run_expect([0], "sudo apt-get install --yes --no-install-recommends lynis")
    profile = base64.b64encode(PROFILE.read_bytes()).decode()
    host.run_expect([0], f"echo {profile} | base64 --decode | sudo tee /etc/lynis/custom.prf")
    # The container's own network takes the parameters as a host does at its start
    host.run_expect([0], "sudo mount -o remount,rw,bind /proc/sys && sudo /lib/systemd/systemd-sysctl --prefix=/net")
    try:
        host.run_expect([0], "sudo lynis audit system --quick --cronjob --no-colors")
    finally:
        host.run_expect([0], "sudo mount -o remount,ro,bind /proc/sys")
    report = host.run_expect([0], "sudo cat /var/log/lynis-report.dat").stdout
    figures = dict(re.findall(r"^(lynis_version|hardening_index)=(.+)$", report, re.MULTILINE))
    print(f"Lynis {figures['lynis_version']}: hardening index {figures['hardening_index']}")
    print("\n".join(re.findall(r"^(?:warning|suggestion)\[\]=.*", report, re.MULTILINE)))
    assert "warning[]=" not in report
    assert int(figures["hardening_index"]) >= 85


def test_a_program_of_root_leaves_no_core_dump(host: Any) -> None:
    """Catches a dump of a setuid program, with its secrets, in the folder of whoever made it die; and dumps of units."""
    host.run_expect([0], "sudo install --mode=4755 /usr/bin/sleep /var/tmp/setuid-sleep")
    assert host.run_expect([0], f"python3 -c '{DIE}'").stdout.split() == ["True", "False"]
    assert host.run_expect([0], "sudo systemd-run --quiet --wait --pipe --collect sh -c 'ulimit -Hc'").stdout.strip() == "0"


def test_files_of_a_new_user_are_private(host: Any, someone: str) -> None:
    """Catches files that other users can read; and files of root that services cannot, which is what broke umask 027 elsewhere."""
    modes = host.run_expect([0], f"sudo su - {someone} -c 'touch made && mkdir folder && stat --format=%a made folder'").stdout
    assert modes.split() == ["640", "750"]
    assert host.run_expect([0], "rm -f made; touch made && stat --format=%a made").stdout.strip() == "640"
    assert host.run_expect([0], "sudo rm -f made; sudo touch made && stat --format=%a made").stdout.strip() == "644"


def test_processes_of_others_are_hidden(host: Any) -> None:
    """Catches command lines that every user can read; and a logind that no longer sees whom a session belongs to."""
    assert "systemd-journald" not in host.run_expect([0], "ps -e -o args").stdout
    assert "systemd-journal" in host.run_expect([0], "sudo ps -e -o args").stdout
    # A login of its own, for the one that tests share may be older than the option
    login = "sudo systemd-run --quiet --wait --pipe --collect --property=PAMName=login --uid=admin"
    assert "Name=admin" in host.run_expect([0], f"{login} loginctl show-user admin").stdout


def test_a_module_of_the_list_is_refused(host: Any) -> None:
    """Catches a module that is only kept from loading by itself, and that anything may still ask for by name."""
    for module in ("dccp", "usb-storage"):
        assert host.run_expect([0], f"sudo modprobe --dry-run --verbose {module}").stdout.strip() == "install /bin/false"
        assert host.run(f"sudo modprobe {module}").rc != 0


def test_sudo_is_logged_without_what_passes_through(host: Any) -> None:
    """Catches an administrator's command that leaves no trace; and a log that keeps what was typed into it."""
    host.run_expect([0], "echo W4vGq8sZ0pLr2xNd | sudo tee /dev/null")
    log = host.run_expect([0], "sudo cat /var/log/sudo.log").stdout
    assert re.search(r"admin .*COMMAND=/usr/bin/tee /dev/null", log.replace("\n    ", " "))
    assert "W4vGq8sZ0pLr2xNd" not in log
    assert host.run_expect([0], "sudo stat --format=%a /var/log/sudo.log").stdout.strip() == "600"


def test_a_removed_package_stays_away(host: Any) -> None:
    """Catches telnet that comes back with the next package that recommends it."""
    said = host.run("sudo apt-get install --yes telnet")
    assert said.rc != 0
    assert "no installation candidate" in said.stderr


def test_a_bad_password_is_refused(host: Any, someone: str) -> None:
    """Catches passwords that the first guess finds."""
    ask = "sudo su - {} -c '(echo {}; echo {}; echo {}) | passwd'"
    host.run_expect([0], f"echo {someone}:9-Pebbles-Under-Snow | sudo chpasswd")
    assert host.run(ask.format(someone, "9-Pebbles-Under-Snow", "Password1234", "Password1234")).rc != 0
    assert host.run(ask.format(someone, "9-Pebbles-Under-Snow", "4-Lanterns-On-Water", "4-Lanterns-On-Water")).rc == 0


def test_a_unit_with_a_user_of_its_own_still_works(host: Any) -> None:
    """Catches a host on which sandboxes fail: an application's unit with a user made for it, which reads, writes and asks for names."""
    sandbox = "DynamicUser ProtectSystem=strict PrivateTmp ProtectProc=invisible StateDirectory=probe MemoryDenyWriteExecute"
    options = " ".join(f"--property={option if '=' in option else option + '=yes'}" for option in sandbox.split())
    work = 'import getpass, pathlib, tempfile; tempfile.TemporaryFile(); pathlib.Path("/var/lib/probe/file").write_text(getpass.getuser())'
    host.run_expect([0], f"sudo systemd-run --quiet --wait --pipe --collect {options} python3 -c '{work}'")


@pytest.mark.one_release
def test_each_part_can_be_switched_off(host: Any, converge: Converge) -> None:
    """Catches a switch that leaves its file behind, and settings of the distribution that do not come back."""
    ours = "sudo find /etc /usr/share/pam-configs -name '*groundcrew*' -path '*harden*' -o -name 'groundcrew-proc*' -o -name 'groundcrew-umask'"
    assert host.run_expect([0], ours).stdout
    try:
        assert converge(**OFF).returncode == 0
        assert host.run_expect([0], ours).stdout == ""
        changed = host.run("dpkg --verify login.defs base-files libpam-runtime").stdout
        assert not re.search(r"/etc/(login.defs|issue|issue.net)", changed)
        assert "Debian GNU/Linux" in host.file("/etc/issue").content_string
        assert host.run_expect([0], "grep -c -E '^(proc|tmpfs)' /etc/fstab || true").stdout.strip() == "0"
    finally:
        assert converge().returncode == 0
    assert host.run_expect([0], ours).stdout
