"""Files that a web server sends itself: their time, and their compressed copies."""

from __future__ import annotations

import gzip
import os
import zlib

COMPRESSED = {".css", ".js", ".mjs", ".svg", ".html", ".txt", ".json", ".map", ".xml", ".ico", ".wasm", ".ttf", ".otf", ".webmanifest"}
SMALLEST = 512


def content_time(content: bytes) -> int:
    """A past time that follows from the content: a web server's ETag changes when a file does, and not with each release."""
    return 1_000_000_000 + zlib.crc32(content) % 500_000_000


def compressed(name: str, content: bytes) -> dict[str, bytes]:
    """The compressed copies worth having beside a static file."""
    if os.path.splitext(name)[1].lower() not in COMPRESSED or len(content) < SMALLEST:
        return {}
    copies = {".gz": gzip.compress(content, 9, mtime=0)}
    try:
        import brotli
    except ImportError:
        pass
    else:
        copies[".br"] = brotli.compress(content, quality=11)
    return {suffix: copy for suffix, copy in copies.items() if len(copy) < len(content)}
