"""As much of Redis' protocol as the modules take."""

from __future__ import annotations

import socket
import ssl
from typing import Any, BinaryIO


class RedisError(Exception):
    """A server refuses."""


class Redis:
    """A connection, over TLS where the authority of the server's certificate is given; what the certificate says of the name is checked."""

    def __init__(self, address: str, port: int, ca_file: str = "", certificate: tuple[str, str] | None = None, timeout: float = 10) -> None:
        self.socket = socket.create_connection((address, port), timeout=timeout)
        if ca_file:
            context = ssl.create_default_context(cafile=ca_file)
            if certificate:
                context.load_cert_chain(*certificate)
            self.socket = context.wrap_socket(self.socket, server_hostname=address)
        self.answers: BinaryIO = self.socket.makefile("rb")

    def ask(self, *words: str) -> Any:
        parts = [word.encode() for word in words]
        self.socket.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
        return self.read()

    def read(self) -> Any:
        line = self.answers.readline()
        if not line.endswith(b"\r\n"):
            raise RedisError("the connection has ended")
        kind, rest = line[:1], line[1:-2].decode()
        if kind == b"-":
            raise RedisError(rest)
        if kind == b"$":
            return self.answers.read(int(rest) + 2)[:-2].decode() if int(rest) >= 0 else None
        if kind == b"*":
            return [self.read() for _ in range(int(rest))]
        return rest

    def close(self) -> None:
        self.answers.close()
        self.socket.close()
