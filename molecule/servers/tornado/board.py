"""A server of its own: it makes the socket that it is told to, and ends what it runs when it is told to stop."""

import argparse
import asyncio
import signal

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_unix_socket
from tornado.web import Application, RequestHandler


class Page(RequestHandler):
    def get(self) -> None:
        self.write({"notes": 0, "static": f"{self.request.protocol}://{self.request.host}/"})


class Nap(RequestHandler):
    async def get(self) -> None:
        # A request in progress, for the tests to stop the server under
        await asyncio.sleep(1)
        self.write("rested")


class Health(RequestHandler):
    def get(self) -> None:
        self.write("fine")


async def main(path: str) -> None:
    server = HTTPServer(Application([("/", Page), ("/nap", Nap), ("/healthz", Health)]), xheaders=True)
    server.add_socket(bind_unix_socket(path, mode=0o660))
    print(f"listens on {path}", flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.stop()
    await server.close_all_connections()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", required=True)
    asyncio.run(main(parser.parse_args().socket))
