"""Takes votes from the queue into the database, each once: the last one of a voter counts."""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import psycopg2
import redis

TABLE = "CREATE TABLE IF NOT EXISTS votes (voter TEXT PRIMARY KEY, vote TEXT NOT NULL)"
COUNT = (
    "INSERT INTO votes VALUES (%(voter)s, %(vote)s)"
    " ON CONFLICT (voter) DO UPDATE SET vote = EXCLUDED.vote"
)


def connect():
    password = Path(os.environ["POSTGRES_PASSWORD_FILE"]).read_text().strip()
    database = psycopg2.connect(
        host=os.environ["POSTGRES_HOST"],
        user=os.environ["POSTGRES_USER"],
        dbname=os.environ["POSTGRES_DB"],
        password=password,
        connect_timeout=5,
    )
    database.autocommit = True
    return database


def work():
    queue = redis.Redis(host=os.environ.get("REDIS_HOST", "redis"), socket_timeout=30)
    with contextlib.closing(connect()) as database, database.cursor() as cursor:
        cursor.execute(TABLE)
        print("ready", flush=True)
        while True:
            # Moved, not taken: a vote is in one of the two lists until it is in the database.
            vote = queue.lindex("taken", 0) or queue.blmove("votes", "taken", 5, "LEFT", "RIGHT")
            if vote:
                cursor.execute(COUNT, json.loads(vote))
                queue.lrem("taken", 1, vote)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        try:
            work()
        except (redis.RedisError, psycopg2.Error) as error:
            print(f"again in a second: {error}", flush=True)
            time.sleep(1)


if __name__ == "__main__":
    main()
