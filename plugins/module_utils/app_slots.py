"""A request to a slot, over its Unix socket."""

from __future__ import annotations

import http.client
import socket


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(path: str, url: str, host: str, timeout: float) -> tuple[int, str]:
    """The status of an answer, 0 for none, and what there is to say about it."""
    connection = Connection(path, timeout)
    try:
        connection.request("GET", url, headers={"Host": host, "X-Forwarded-Proto": "https", "Connection": "close"})
        answer = connection.getresponse()
        text = answer.read(300).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return 0, f"{type(error).__name__}: {error}"
    else:
        return answer.status, f"answered {answer.status}: {text}"
    finally:
        connection.close()
