"""Says who serves it, and takes as long as it is asked to."""

import os
import time

from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue

if os.environ.get("BREAK"):
    raise RuntimeError("broken on purpose")

app = Flask(__name__)


@app.get("/healthz")
def healthz() -> ResponseReturnValue:
    return jsonify(process=os.getpid(), greeting=os.environ["GREETING"])


@app.get("/nap")
def nap() -> ResponseReturnValue:
    # A request in progress, for the tests to stop or restart under
    time.sleep(float(request.args["seconds"]))
    return jsonify(process=os.getpid())
