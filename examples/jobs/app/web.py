"""POST /jobs takes {"text": ..., "seconds": ...} or a list of them; GET /done gives results."""

import contextlib
import json

from broker import DONE, JOBS, channel, send
from flask import Flask, jsonify, request

app = Flask(__name__)


@contextlib.contextmanager
def connected():
    made = channel()
    try:
        yield made
    finally:
        made.connection.close()


@app.post("/jobs")
def jobs():
    given = request.get_json(force=True)
    given = given if isinstance(given, list) else [given]
    with connected() as made:
        for job in given:
            send(made, JOBS, json.dumps(job))
    return jsonify(taken=len(given)), 202


@app.get("/done")
def done():
    """Give each result to whoever asks, once."""
    found = []
    with connected() as made:
        while len(found) < 1000:
            method, _, body = made.basic_get(DONE, auto_ack=True)
            if method is None:
                break
            found.append(json.loads(body))
    return jsonify(found)


@app.get("/")
def waiting():
    with connected() as made:
        counts = {
            name: made.queue_declare(name, durable=True).method.message_count
            for name in (JOBS, DONE)
        }
    return jsonify(counts)


@app.get("/healthz")
def healthz():
    with connected():
        return "ok\n"
