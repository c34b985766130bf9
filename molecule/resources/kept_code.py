"""Keeps what Python compiles of Ansible's modules; on the hosts of tests alone, where it halves what a task takes of them.

Every task sends its module and all that it imports as an archive, which Python compiles anew each time. create.yml has a host's Python
import this at each start, so it imports little itself. Only root keeps code, all may read it; hosts of one release share it.
"""

from __future__ import annotations

import _imp
import marshal
import os
import sys
import zipimport

FOLDER = "/var/cache/groundcrew/code"
CODE = type(compile("", "", "exec"))
compile_anew = zipimport._compile_source  # type: ignore[attr-defined]


def digest(data: bytes) -> bytes:
    """Eight bytes, as Python names its compiled files by their source; hashlib would take longer to load."""
    return _imp.source_hash(sys.hexversion, data)


def read(path: str) -> object:
    """Return the code that a file keeps; None where it is not there or not whole."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError:
        return None
    if not content[8:] or content[:8] != digest(content[8:]):
        return None
    code = marshal.loads(content[8:])  # noqa: S302 -- of a folder that root alone writes
    return code if isinstance(code, CODE) else None


def keep(path: str, code: object) -> None:
    """Write code; a file appears by rename, whole, and where it cannot be written nothing is kept."""
    data, part = marshal.dumps(code), f"{path}.{os.uname().nodename}-{os.getpid()}"
    try:
        with open(part, "wb") as file:
            file.write(digest(data) + data)
        os.rename(part, path)
    except OSError:
        pass


def compiled(pathname: str, source: bytes) -> object:
    """Return the code of a file in an archive; what is none of Ansible's is zipimport's own business."""
    if "_payload.zip/ansible" not in pathname:
        return compile_anew(pathname, source)
    path = f"{FOLDER}/{sys.implementation.cache_tag}-{digest(source).hex()}-{len(source)}"
    code = read(path)
    if code is None:
        code = compile_anew(pathname, source)
        keep(path, code)
    else:
        # The archive lies elsewhere each time
        _imp._fix_co_filename(code, pathname)  # type: ignore[attr-defined]
    return code


zipimport._compile_source = compiled  # type: ignore[attr-defined]
