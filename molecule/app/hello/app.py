"""A plain application: no package, requirements without hashes, one of them without a wheel."""

import crcmod.predefined
from flask import Flask

GREETING = "hello"
app = Flask(__name__)


@app.get("/")
def index() -> str:
    return f"{GREETING} {crcmod.predefined.mkCrcFun('crc-32')(GREETING.encode())}"
