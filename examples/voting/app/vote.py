"""Takes votes and puts them into a queue; who votes again changes the vote."""

import json
import os
import secrets
import socket

import redis
from flask import Flask, make_response, render_template_string, request

CHOICES = os.environ.get("CHOICES", "Cats,Dogs").split(",")
PAGE = """<!doctype html><meta charset="utf-8"><title>{{ choices|join(' or ') }}?</title>
<h1>{{ choices|join(' or ') }}?</h1>
<form method="post">{% for choice in choices %}
<button name="vote" value="{{ choice }}">{{ choice }}</button>{% endfor %}</form>
{% if voted %}<p>You voted for {{ voted }}.</p>{% endif %}
<p><small>answered by {{ task }}</small>
"""

app = Flask(__name__)
queue = redis.Redis(host=os.environ.get("REDIS_HOST", "redis"), socket_timeout=5)


@app.route("/", methods=["GET", "POST"])
def vote():
    voter = request.cookies.get("voter") or secrets.token_hex(8)
    voted = request.form.get("vote")
    if voted is not None:
        if voted not in CHOICES:
            return f"choose one of {', '.join(CHOICES)}\n", 400
        queue.rpush("votes", json.dumps({"voter": voter, "vote": voted}))
    page = render_template_string(PAGE, choices=CHOICES, voted=voted, task=socket.gethostname())
    answer = make_response(page)
    answer.set_cookie("voter", voter)
    return answer


@app.get("/healthz")
def healthz():
    queue.ping()
    return "ok\n"
