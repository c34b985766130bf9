#!/usr/bin/python
"""Write a line about a release, on the host and in its journal."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_audit
short_description: Write down who released what, and how it went
description:
  - Appends a line of JSON to a file that is never shortened by it, and the same to the journal.
  - With O(root), a release is written down once, also where the run that made it current was killed before it came to this.
options:
  name: {description: "The application's name; names the line in the journal NAME-release.", type: str, required: true}
  file: {description: "The file, like /var/log/textreport/releases.log.", type: path, required: true}
  root: {description: "Folder of the application: the release written down is its current one, unless it was the last.", type: path}
  entry: {description: What to write; the time is added., type: dict, required: true}
author: [Groundcrew]
"""
RETURN = r"""
line: {description: What was written., returned: always, type: str}
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.app_releases import audit, last_audited, target
from ansible.module_utils.basic import AnsibleModule


def write(file: Path, name: str, entry: dict[str, Any], root: str | None) -> str:
    if root:
        before, now = last_audited(file), target(Path(root, "current"))
        if now in {before, ""}:
            return ""
        entry = {**entry, "from": before, "to": now}
    return str(audit(file, name, entry))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "file": {"type": "path", "required": True},
            "root": {"type": "path"},
            "entry": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    line = "" if module.check_mode else write(Path(given["file"]), given["name"], given["entry"], given["root"])
    module.exit_json(changed=False, line=line)


if __name__ == "__main__":
    main()
