"""The connection that the page and the workers make, and the two queues they speak through."""

import os
from pathlib import Path

import pika

JOBS, DONE = "jobs", "done"


def channel():
    password = Path(os.environ["RABBITMQ_PASSWORD_FILE"]).read_text().strip()
    connection = pika.BlockingConnection(
        pika.ConnectionParameters(
            host=os.environ["RABBITMQ_HOST"],
            credentials=pika.PlainCredentials(os.environ["RABBITMQ_USER"], password),
            heartbeat=20,
            blocked_connection_timeout=20,
        )
    )
    made = connection.channel()
    made.confirm_delivery()
    for queue in (JOBS, DONE):
        made.queue_declare(queue, durable=True)
    return made


def send(made, queue, text):
    """Return when the broker has it on disk."""
    persistent = pika.BasicProperties(delivery_mode=2)
    made.basic_publish("", queue, text.encode(), persistent, mandatory=True)
