"""An application for tests: it tells who answers and what reached it."""

from __future__ import annotations

import json
import socket
import socketserver
import time
from http.server import BaseHTTPRequestHandler


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 75

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        received = len(self.rfile.read(length))
        if self.path.startswith("/slow/"):
            time.sleep(float(self.path.removeprefix("/slow/")))
        if self.path != "/healthz":
            print(self.command, self.path, self.headers.get("X-Request-ID"), flush=True)
        answer = {"host": socket.gethostname(), "path": self.path, "received": received, "headers": dict(self.headers)}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def address_string(self) -> str:
        return "proxy"

    def log_message(self, *_: object) -> None:
        """Say nothing of its own."""


class Server(socketserver.ThreadingMixIn, socketserver.BaseServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket) -> None:
        super().__init__("", Handler)
        self.socket = listener

    def fileno(self) -> int:
        return self.socket.fileno()

    def get_request(self) -> tuple[socket.socket, str]:
        return self.socket.accept()[0], "proxy"

    def shutdown_request(self, request: socket.socket) -> None:
        request.close()


if __name__ == "__main__":
    Server(socket.socket(fileno=3)).serve_forever()
