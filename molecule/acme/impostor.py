"""A web server at an address that answers each challenge, by words of its own."""

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Impostor(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"words.of-its-own")


HTTPServer((sys.argv[1], 80), Impostor).serve_forever()
