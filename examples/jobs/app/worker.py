"""Does one job after the other: counts words. A job is given back when its worker dies."""

import json
import os
import signal
import socket
import time
from pathlib import Path

import pika.exceptions
from broker import DONE, JOBS, channel, send

stopping = False


def stop(*_):
    global stopping
    stopping = True


def work(job):
    time.sleep(job.get("seconds", 0))
    return {
        "job": job,
        "words": len(job.get("text", "").split()),
        "worker": socket.gethostname(),
        "version": os.environ.get("WORKER_VERSION", "1"),
    }


def serve():
    made = channel()
    made.basic_qos(prefetch_count=1)  # the next job goes to whoever is free
    for method, _, body in made.consume(JOBS, inactivity_timeout=0.5):
        if method is not None:
            send(made, DONE, json.dumps(work(json.loads(body))))
            made.basic_ack(method.delivery_tag)  # done first, forgotten then
        Path("/tmp/alive").touch()
        if stopping:
            break
    made.connection.close()


def main():
    signal.signal(signal.SIGTERM, stop)
    while not stopping:
        try:
            serve()
        except (pika.exceptions.AMQPError, OSError) as error:
            print(f"again in a second: {error!r}", flush=True)
            time.sleep(1)


if __name__ == "__main__":
    main()
