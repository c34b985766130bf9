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

from pathlib import Path

from ansible.module_utils.app_releases import audit
from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "file": {"type": "path", "required": True},
            "entry": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    line = "" if module.check_mode else audit(Path(given["file"]), given["name"], given["entry"])
    module.exit_json(changed=False, line=line)


if __name__ == "__main__":
    main()
