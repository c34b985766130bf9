"""What runs that were killed have left is whole after the run that came through; the scenario debian12 kills them."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("as_root")


def test_a_further_run_changes_nothing(converge: Any) -> None:
    """Catches a run that came through and yet left something for the next."""
    result = converge(playbook="site.yml")
    assert result.returncode == 0, result.stdout[-4000:]
    assert result.settled, [line for line in result.stdout.splitlines() if line.startswith(("TASK", "changed"))]


def test_nothing_is_half_done(host: Any) -> None:
    """Catches packages, releases and units that a killed run left in the middle."""
    assert host.check_output("systemctl --failed --plain --no-legend") == ""
    assert host.check_output("dpkg --audit") == ""
    assert host.run("test -e /usr/sbin/policy-rc.d").rc != 0
    assert host.check_output("find /srv/textreport/releases -mindepth 1 -maxdepth 1 -name '.*'") == ""


def test_what_runs_is_what_is_configured(host: Any) -> None:
    """Catches a reload or a restart that was lost with the run that owed it."""
    web, worker = (host.check_output(f"readlink /srv/textreport/{service}/live") for service in ("web", "worker"))
    own = (f"textreport-web@{web}", f"textreport-worker-default@{worker}", "textreport-beat")
    postgresql = f"postgresql@{host.check_output('ls /etc/postgresql')}-main"
    for unit in (*own, "nginx", "redis-server@broker", postgresql):
        assert host.check_output(f"systemctl show -P NeedDaemonReload {unit}") == "no"
    assert host.check_output("sudo -u postgres psql -XAtc 'SELECT count(*) FROM pg_settings WHERE pending_restart'") == "0"
    assert host.check_output("sudo -u postgres psql -XAtc 'SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL'") == "0"
    assert "policy drop" in host.check_output("nft list ruleset")
    assert host.check_output("groundcrew-firewall status") == "current"
    (limit,) = host.check_output("sed -n 's/^DefaultLimitNOFILE=.*://p' /etc/systemd/system.conf.d/groundcrew.conf").split()
    assert host.check_output("systemctl show -P DefaultLimitNOFILE") == limit
