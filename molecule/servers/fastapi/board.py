"""A page, a static file and a table, for every server that runs ASGI applications."""

import asyncio
import os
import sqlite3

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

app = FastAPI()
# For the servers that leave X-Forwarded-Proto to the application
app.add_middleware(ProxyHeadersMiddleware, trusted_hosts="*")


def migrate() -> None:
    with sqlite3.connect(os.environ["DATABASE"]) as database:
        database.execute("CREATE TABLE IF NOT EXISTS notes (text)")


@app.get("/")
def page(request: Request) -> dict[str, object]:
    with sqlite3.connect(os.environ["DATABASE"]) as database:
        ((count,),) = database.execute("SELECT count(*) FROM notes").fetchall()
    return {"notes": count, "static": str(request.base_url.replace(path="/static/site.css"))}


@app.get("/nap", response_class=PlainTextResponse)
async def nap() -> str:
    # A request in progress, for the tests to stop the server under
    await asyncio.sleep(1)
    return "rested"


@app.get("/healthz", response_class=PlainTextResponse)
def health() -> str:
    return "fine"
