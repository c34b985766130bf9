#!/usr/bin/python
"""Open a folder of a release for the application to fill with static files, and take them from it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_static
short_description: Have an application fill the folder of its static files
description:
  - O(state=open) makes the folder anew, for its owner alone, unless the release has filled it before.
  - O(state=sealed) gives what is there to root, readable by everybody, with compressed copies and with times that follow from the contents.
options:
  release: {description: "Folder of the release, like /srv/textreport/releases/ID.", type: path, required: true}
  folder: {description: Folder below its C(src)., type: str, required: true}
  state: {description: What to do., type: str, choices: [open, sealed], required: true}
  owner: {description: "User who fills it, with O(state=open).", type: str, default: root}
author: [Groundcrew]
"""
RETURN = r"""
files: {description: How many files there are., returned: with O(state=sealed), type: int}
"""

import os
import pwd
import shutil
import stat
from pathlib import Path
from typing import Any

from ansible.module_utils.app_releases import ReleaseError
from ansible.module_utils.app_static_files import compressed, content_time
from ansible.module_utils.basic import AnsibleModule

# In the release's folder, once its static files are whole
SEAL = "static.sealed"


def open_folder(folder: Path, owner: str) -> None:
    """What a run that was killed has left would be half a set of files, which a command may take for a whole one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    user = pwd.getpwnam(owner)
    os.chown(folder, user.pw_uid, user.pw_gid)


def seal_file(path: Path) -> bytes:
    """Its content; a link would make the web server send what the application may not read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ReleaseError(f"{path} is neither a file nor a folder")
        os.fchown(descriptor, 0, 0)
        os.fchmod(descriptor, 0o644)
        with os.fdopen(os.dup(descriptor), "rb") as file:
            content = file.read()
        os.utime(descriptor, (content_time(content), content_time(content)))
    finally:
        os.close(descriptor)
    return content


def seal(folder: Path) -> int:
    count = 0
    for top, _, names in os.walk(folder):
        os.chown(top, 0, 0)
        Path(top).chmod(0o755)
        for entry in os.scandir(top):
            if entry.is_symlink():
                raise ReleaseError(f"{entry.path} is a link: static files are files")
        for name in names:
            content = seal_file(Path(top, name))
            count += 1
            for suffix, copy in compressed(name, content).items():
                if f"{name}{suffix}" not in names:
                    path = Path(top, f"{name}{suffix}")
                    path.write_bytes(copy)
                    os.utime(path, (content_time(content), content_time(content)))
    return count


def apply(given: dict[str, Any], check: bool) -> dict[str, Any]:
    release = Path(given["release"])
    folder = release / "src" / given["folder"].strip("/")
    if given["state"] == "open":
        needed = not (release / SEAL).exists()
        if needed and not check:
            open_folder(folder, given["owner"])
        return {"changed": needed}
    if check:
        return {"changed": True}
    count = seal(folder)
    if not count:
        raise ReleaseError(f"the command has left no file in {folder}: let it fill that folder, which app_static_folder names")
    os.sync()
    times = release.stat()
    (release / SEAL).touch()
    os.utime(release, ns=(times.st_atime_ns, times.st_mtime_ns))
    return {"changed": True, "files": count}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "release": {"type": "path", "required": True},
            "folder": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["open", "sealed"], "required": True},
            "owner": {"type": "str", "default": "root"},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    try:
        module.exit_json(**apply(module.params, module.check_mode))
    except (ReleaseError, OSError, KeyError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
