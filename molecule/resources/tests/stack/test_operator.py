"""What an operator sees on the controller: secrets in no output, and whom the smoke test blames."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest


@pytest.mark.one_release
def test_changed_secrets_stay_out_of_diffs_and_of_the_most_verbose_output(converge: Any, secrets: dict[str, str], tmp_path: Path) -> None:
    """Catches a task that shows a secret, old or new, where it would change it."""
    new = {name: f"planted-{name.replace('_', '-')}-5f0c61d2a97b" for name in secrets}
    (tmp_path / "new.json").write_text(json.dumps({f"vault_{name}": secret for name, secret in new.items()}))
    done = converge("--check", "--diff", "-vvv", f"--extra-vars=@{tmp_path / 'new.json'}", playbook="site.yml")
    assert done.returncode == 0, done.stdout[-4000:]
    assert re.search(r"changed=[1-9]", done.stdout), "nothing would change, so nothing was tried"
    assert [name for name in secrets if any(form in done.stdout for form in (secrets[name], quote(secrets[name]), new[name]))] == []


@pytest.mark.one_release
@pytest.mark.parametrize(("service", "name", "step"), [("worker", "worker-default", "See the task done"), ("web", "web", "Ask for a page")])
def test_smoke_test_names_the_culprit(host: Any, site: Any, converge: Any, eventually: Any, service: str, name: str, step: str) -> None:
    """Catches a smoke test that is green whatever is down, and one that does not say where to look."""
    unit = f"textreport-{name}@{host.check_output(f'readlink /srv/textreport/{service}/live')}.service"
    also = f" {unit.replace('.service', '.socket')}" if service == "web" else ""
    with host.sudo():
        host.check_output(f"systemctl stop{also} {unit}")
    try:
        done = converge(playbook="playbooks/smoke.yml", smoke_ready_timeout=4, smoke_task_timeout=4)
    finally:
        with host.sudo():
            host.check_output(f"systemctl start{also} {unit}")
    assert done.returncode != 0
    assert re.search(rf"The culprit seems to be textreport-{name.replace('default', '.')}@..service on \S+, which is \S+", done.stdout), (
        done.stdout[-3000:]
    )
    assert f'failed at "{step}"' in done.stdout or "Not ready: worker" in done.stdout
    # The end of its own journal
    assert re.search(r"Stopped .*textreport|warm shutdown|Shutting down", done.stdout), done.stdout[-3000:]
    assert eventually(site.ready, within=60)
