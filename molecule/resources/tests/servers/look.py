"""Runs on the machine, as root: prints what there is to see of the applications named, as JSON."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor


def run(*command: str) -> tuple[int, str]:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout.strip()


def ask(app: str, socket: str, path: str, *options: str, user: str = "www-data") -> int:
    curl = ["curl", "--silent", "--fail", "--max-time", "20", "--unix-socket", socket, "--output", "/dev/null", *options]
    return run("runuser", "-u", user, "--", *curl, f"http://{app}.test{path}")[0]


def stop_in_a_request(app: str) -> int:
    """Start the idle slot, which is still pinned to the server before, and stop it in the middle of a request: how that went."""
    slot = "green" if os.readlink(f"/srv/{app}/web/live") == "blue" else "blue"
    units = [f"{app}-web@{slot}.socket", f"{app}-web@{slot}.service"]
    socket = os.path.join(os.readlink(f"/srv/{app}/web/{slot}/run"), "web.sock")
    run("systemctl", "start", *units)
    ready = ask(app, socket, "/healthz", "--retry", "30", "--retry-delay", "1", "--retry-all-errors")
    asked = subprocess.Popen(
        ["curl", "--silent", "--fail", "--max-time", "20", "--unix-socket", socket, "--output", "/dev/null", f"http://{app}.test/nap"]
    )
    # For the request to begin
    with contextlib.suppress(subprocess.TimeoutExpired):
        asked.wait(timeout=0.3)
    run("systemctl", "stop", units[1])
    code = asked.wait()
    run("systemctl", "stop", *units)
    return ready or code


def look(app: str) -> dict[str, object]:
    slot = os.readlink(f"/srv/{app}/web/live")
    unit, socket = f"{app}-web@{slot}.service", f"/srv/{app}/web/live/run/web.sock"
    main = run("systemctl", "show", "--property=MainPID", "--value", unit)[1]
    exposure = re.search(r"exposure level for \S+: ([\d.]+)", run("systemd-analyze", "security", "--no-pager", unit)[1])
    return {
        "running": run("systemctl", "list-units", "--plain", "--no-legend", "--state=running", f"{app}-web@*.service")[1].splitlines(),
        "user": run("ps", "-o", "user=", "-p", main)[1],
        "process": run("ps", "-ww", "-o", "args=", "-p", main)[1],
        "start": run("cat", f"/etc/{app}/slots/web/{slot}/serve")[1],
        "configuration": run("cat", f"/etc/{app}/slots/web/{slot}/gunicorn.conf.py")[1],
        "exposure": float(exposure[1]) if exposure else 10.0,
        "journal": run("journalctl", "--no-pager", "--output=cat", f"--identifier={app}-web", f"--unit={unit}", "--lines=20")[1],
        "web_server": ask(app, socket, "/healthz"),
        "stranger": ask(app, socket, "/healthz", user="nobody"),
    }


if __name__ == "__main__":
    with ThreadPoolExecutor() as pool:
        do = {"look": look, "stop": stop_in_a_request}[sys.argv[1]]
        print(json.dumps(dict(zip(sys.argv[2:], pool.map(do, sys.argv[2:]), strict=True))))
