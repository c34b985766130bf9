"""A web server that answers each challenge, by words of its own."""

from http.server import BaseHTTPRequestHandler, HTTPServer


class Impostor(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"words.of-its-own")


HTTPServer(("", 80), Impostor).serve_forever()
