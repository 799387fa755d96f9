"""Shows what was voted: / is a page, /api the same as JSON."""

import os
from pathlib import Path

import psycopg2
from flask import Flask, jsonify, render_template_string

PAGE = """<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="2">
<title>Result</title><h1>Result</h1>
<table>{% for choice, count in votes.items() %}<tr><td>{{ choice }}<td>{{ count }}{% endfor %}</table>
"""

app = Flask(__name__)


def votes():
    password = Path(os.environ["POSTGRES_PASSWORD_FILE"]).read_text().strip()
    database = psycopg2.connect(
        host=os.environ["POSTGRES_HOST"],
        user=os.environ["POSTGRES_USER"],
        dbname=os.environ["POSTGRES_DB"],
        password=password,
        connect_timeout=5,
    )
    try:
        with database.cursor() as cursor:
            cursor.execute("SELECT to_regclass('votes')")
            if cursor.fetchone()[0] is None:  # the worker has not been there yet
                return {}
            cursor.execute("SELECT vote, count(*) FROM votes GROUP BY vote ORDER BY vote")
            return dict(cursor.fetchall())
    finally:
        database.close()


@app.get("/")
def page():
    return render_template_string(PAGE, votes=votes())


@app.get("/api")
def api():
    return jsonify(votes())


@app.get("/healthz")
def healthz():
    votes()
    return "ok\n"
