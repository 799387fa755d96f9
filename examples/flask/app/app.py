"""Counts visits in MariaDB: every request adds one and answers with all there were."""

import contextlib
import os
import socket
from pathlib import Path

import pymysql
from flask import Flask, jsonify, request

TABLE = (
    "CREATE TABLE IF NOT EXISTS visits (id BIGINT AUTO_INCREMENT PRIMARY KEY,"
    " task VARCHAR(80) NOT NULL, visitor VARCHAR(45) NOT NULL,"
    " seen TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)"
)

app = Flask(__name__)


@contextlib.contextmanager
def cursor():
    database = pymysql.connect(
        host=os.environ["MARIADB_HOST"],
        user=os.environ["MARIADB_USER"],
        database=os.environ["MARIADB_DATABASE"],
        password=Path(os.environ["MARIADB_PASSWORD_FILE"]).read_text().strip(),
        connect_timeout=5,
        autocommit=True,
    )
    try:
        with database.cursor() as made:
            yield made
    finally:
        database.close()


with cursor() as first:
    first.execute(TABLE)


@app.get("/")
def visit():
    task = socket.gethostname()
    visitor = request.headers.get("X-Real-IP", request.remote_addr)
    with cursor() as database:
        database.execute("INSERT INTO visits (task, visitor) VALUES (%s, %s)", (task, visitor))
        database.execute("SELECT task, count(*) FROM visits GROUP BY task ORDER BY task")
        by_task = dict(database.fetchall())
    return jsonify(
        version=os.environ.get("APP_VERSION", "1"),
        task=task,
        visits=sum(by_task.values()),
        by_task=by_task,
    )


@app.get("/healthz")
def healthz():
    with cursor() as database:
        database.execute("SELECT 1")
    return "ok\n"
