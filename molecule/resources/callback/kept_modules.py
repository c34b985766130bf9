"""Keeps the archives that Ansible packs of its modules, in tests: packing them anew in each run took a third of what one took here."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path

from ansible import constants
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: kept_modules
type: aggregate
short_description: Keeps packed modules from run to run
description: Ansible keeps them in a folder of the run; this makes that folder a link to one that stays.
"""
ROOT = Path(__file__).parents[3]
SECONDS = 7 * 24 * 60 * 60


def folder(root: Path) -> Path:
    """Return the folder of this toolchain and these plugins: with others all is packed anew."""
    content = hashlib.sha256()
    for path in [root / "requirements.lock", *sorted((root / "plugins").rglob("*.py"))]:
        content.update(f"{path.relative_to(root)}\0".encode())
        content.update(path.read_bytes())
    return root / ".cache" / "modules" / content.hexdigest()[:16]


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Does it as Ansible starts; what is packed appears by rename, under a lock, so that runs at the same time may share it."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "kept_modules"

    def __init__(self) -> None:
        super().__init__()
        kept = folder(ROOT)
        kept.mkdir(parents=True, exist_ok=True)
        os.utime(kept)
        for other in kept.parent.iterdir():
            if other.stat().st_mtime < time.time() - SECONDS:
                # Another run may be removing it too
                shutil.rmtree(other, ignore_errors=True)
        Path(constants.DEFAULT_LOCAL_TMP, "ansiballz_cache").symlink_to(kept)
