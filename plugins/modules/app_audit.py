#!/usr/bin/python
"""Write a line about a release, on the host and in its journal."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_audit
short_description: Write down who released what, and how it went
description: Appends a line of JSON to a file that is never shortened by it, and the same to the journal.
options:
  name: {description: "The application's name; names the line in the journal NAME-release.", type: str, required: true}
  file: {description: "The file, like /var/log/textreport/releases.log.", type: path, required: true}
  entry: {description: What to write; the time is added., type: dict, required: true}
author: [Groundcrew]
"""
RETURN = r"""
line: {description: What was written., returned: always, type: str}
"""

import json
import os
import syslog
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule


def write(file: Path, entry: dict[str, Any]) -> str:
    line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **entry}, ensure_ascii=False)
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640), "a", encoding="utf-8") as log:
        log.write(f"{line}\n")
        log.flush()
        os.fsync(log.fileno())
    return line


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "file": {"type": "path", "required": True},
            "entry": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    line = ""
    if not module.check_mode:
        line = write(Path(module.params["file"]), module.params["entry"])
        syslog.openlog(f"{module.params['name']}-release")
        syslog.syslog(syslog.LOG_INFO, line)
    module.exit_json(changed=False, line=line)


if __name__ == "__main__":
    main()
