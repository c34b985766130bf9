"""What the scanner finds, what it leaves alone, and whether it says when it cannot."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("as_root")
UPLOADS = "/srv/shop/uploads"
QUARANTINE = "/var/lib/groundcrew-antivirus/quarantine"
# The file that every scanner takes for a virus, in two parts, so that none takes this one for it
EICAR = r"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
Eventually = Callable[..., Any]


def upload(host: Any, name: str, text: str, folder: str = UPLOADS) -> str:
    """Write a file as the application does: of a user of its own, who alone may read it."""
    program = "import os, sys; os.umask(0o077); open(sys.argv[1], 'w').write(sys.argv[2])"
    host.run_expect([0], "setpriv --reuid=www-data --clear-groups python3 -c %s %s %s", program, f"{folder}/{name}", text)
    return f"{folder}/{name}"


def there(host: Any, path: str) -> bool:
    return bool(host.run("test -e %s", path).rc == 0)


def test_an_infected_file_goes_into_quarantine(host: Any, eventually: Eventually) -> None:
    """Catches a scanner that runs and finds nothing, one that may not read what it is to scan, and a name that it cannot cope with."""
    clean = upload(host, "report.txt", "An ordinary report.")
    for name in ("invoice.txt", "two\nlines ERROR.txt", "-rf"):
        infected = upload(host, name, EICAR)
        assert eventually(lambda infected=infected: not there(host, infected)), name
    assert there(host, clean)
    assert host.check_output("stat -c %%a %s", QUARANTINE) == "700"
    kept = host.check_output("find %s -type f -printf x", QUARANTINE)
    assert len(kept) >= 3
    assert host.run("setpriv --reuid=www-data --clear-groups ls %s", QUARANTINE).rc != 0
    assert "invoice.txt: Trial.Signature" in host.check_output("journalctl --no-pager -o cat -u groundcrew-antivirus@new")


def test_a_link_is_not_followed(host: Any, eventually: Eventually) -> None:
    """Catches an upload that makes root move a file of somebody else's."""
    host.check_output("printf %%s %s > /srv/other", EICAR)
    host.check_output("ln -sf /srv/other %s/link", UPLOADS)
    infected = upload(host, "after", EICAR)
    assert eventually(lambda: not there(host, infected))
    assert there(host, "/srv/other")


def test_a_folder_that_comes_later_is_scanned(host: Any, eventually: Eventually) -> None:
    """Catches a folder that is forgotten, or that fails the scan of others, because the first run did not see it."""
    host.check_output("install -d -o www-data -m 0700 /srv/later/uploads")
    infected = upload(host, "late", EICAR, "/srv/later/uploads")
    assert eventually(lambda: not there(host, infected))


def test_new_signatures_find_old_files(host: Any, eventually: Eventually) -> None:
    """Catches signatures that are fetched and not loaded, and files that are scanned but once."""
    old = upload(host, "old.bin", "What nobody knew to be bad.")
    host.run_expect([0], "systemctl start groundcrew-antivirus@new.service")
    assert there(host, old)
    data = b"What nobody knew to be bad."
    line = f"{hashlib.md5(data, usedforsecurity=False).hexdigest()}:{len(data)}:Trial.Later"
    host.check_output("echo %s >> /srv/signatures/own.hdb", line)
    host.run_expect([0], "systemctl restart clamav-freshclam.service")
    assert eventually(lambda: "Trial.Later" in host.check_output("cat /var/lib/clamav/own.hdb"))

    def scanned() -> bool:
        host.run("systemctl start groundcrew-antivirus@all.service")
        return not there(host, old)

    assert eventually(scanned)


def test_a_killed_scanner_is_back(host: Any, eventually: Eventually) -> None:
    host.check_output("systemctl kill --signal=KILL clamav-daemon.service")
    infected = upload(host, "then", EICAR)
    assert eventually(lambda: not there(host, infected))


def test_without_signatures_it_says_that_nothing_is_scanned(host: Any, eventually: Eventually) -> None:
    """Catches a scan that is green though nothing was scanned."""
    host.check_output(
        "systemctl stop clamav-freshclam.service clamav-daemon.socket clamav-daemon.service && mv /var/lib/clamav/own.hdb /root/"
    )
    try:
        infected = upload(host, "unseen", EICAR)
        assert eventually(lambda: host.run("systemctl is-failed groundcrew-antivirus@new.service").rc == 0)
        assert there(host, infected)
    finally:
        host.check_output("mv /root/own.hdb /var/lib/clamav/ && systemctl start clamav-freshclam.service")
    assert eventually(lambda: not there(host, infected))


@pytest.mark.parametrize("unit", ["clamav-daemon", "clamav-freshclam", "groundcrew-antivirus@new"])
def test_it_is_confined(exposure: Callable[[str], float], unit: str) -> None:
    assert exposure(f"{unit}.service") <= 2.0


def test_no_folder_means_no_scanner(host: Any, converge: Any) -> None:
    """Catches a scanner that stays when its last folder is taken away, and a way back that does not lead there."""
    units = "clamav-daemon.service clamav-freshclam.service groundcrew-antivirus-new.timer"
    done = converge(antivirus_folders=[])
    assert done.returncode == 0, done.stdout[-4000:]
    assert set(host.run(f"systemctl is-active {units}").stdout.split()) == {"inactive"}
    done = converge()
    assert done.returncode == 0, done.stdout[-4000:]
    assert host.run(f"systemctl is-active {units}").stdout.split()[1:] == ["active", "active"]
