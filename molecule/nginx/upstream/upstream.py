"""An application for tests: it tells what reached it, over kept-alive connections on the socket that systemd hands to it."""

from __future__ import annotations

import itertools
import json
import socket
import socketserver
import time
from http.server import BaseHTTPRequestHandler

connections = itertools.count(1)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 75

    def setup(self) -> None:
        self.connection_number = next(connections)
        super().setup()

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        if "slow" in self.path:
            # Longer than the site's upstream timeout, which the tests see
            time.sleep(8)
        status = int(self.path.removeprefix("/status/")) if self.path.startswith("/status/") else 200
        answer = {"connection": self.connection_number, "path": self.path, "received": length, "headers": dict(self.headers)}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Referrer-Policy", "unsafe-url")  # nginx has its own
        self.send_header("X-Frame-Options", "SAMEORIGIN")  # left to the application
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_POST = do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET

    def address_string(self) -> str:
        return "nginx"


class Server(socketserver.ThreadingMixIn, socketserver.BaseServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket) -> None:
        super().__init__("", Handler)
        self.socket = listener

    def fileno(self) -> int:
        return self.socket.fileno()

    def get_request(self) -> tuple[socket.socket, str]:
        return self.socket.accept()[0], "nginx"

    def shutdown_request(self, request: socket.socket) -> None:
        request.close()


if __name__ == "__main__":
    Server(socket.socket(fileno=3)).serve_forever()
