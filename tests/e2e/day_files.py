"""The folder of the stack whose day :mod:`tests.e2e.test_day` tells: what a team has in it."""

from __future__ import annotations

COMPOSE = """\
x-quick: &quick {interval: 0.3s, timeout: 5s, retries: 100}

services:
  db:
    image: busybox
    init: true
    command: [sh, -c, "rm -f /tmp/ready; sleep 0.4; echo started >> /data/starts; touch /tmp/ready; sleep inf"]
    healthcheck: {<<: *quick, test: [CMD, test, -e, /tmp/ready]}
    volumes: [data:/data]
    secrets: [password]
    restart: unless-stopped
  migrate:
    image: busybox
    command: [echo, migrated]
    depends_on:
      db: {condition: service_healthy}
  app:
    image: shop/app:${VERSION}
    build:
      context: .
      args: {VERSION: "${VERSION}"}
    init: true
    environment: {COLOUR: "${COLOUR:-none}"}
    healthcheck: {<<: *quick, test: "wget -qO /dev/null http://127.0.0.1:8000/"}
    secrets: [password]
    scale: 3
    depends_on:
      migrate: {condition: service_completed_successfully}
  web:
    image: busybox
    init: true
    command: [httpd, -f, -p, "80", -h, /www]
    ports: ["${PORT}:80"]
    configs: [{source: page, target: /www/cgi-bin/page, mode: 0555}]
    depends_on:
      app: {condition: service_healthy}
  cron:
    image: busybox
    init: true
    command: [sh, -c, "while :; do echo tick; sleep 0.3; done"]
    profiles: [cron]

volumes: {data: {}}
secrets: {password: {file: ./password.txt}}
configs: {page: {file: ./page.sh}}
"""  # noqa: E501 - as it is typed
# What the team adds here: a shorter watch over updates than the 5 s that are usual.
OVERRIDE = """\
services:
  app: &tuned {deploy: {update_config: {monitor: 0.3s}}}
  web: *tuned
"""
DOCKERFILE = """\
FROM busybox
ARG VERSION
ENV VERSION=$VERSION
CMD mkdir -p /www; echo "version $VERSION $COLOUR $(hostname)" > /www/index.html; \
 echo "app $VERSION listens"; exec httpd -f -p 8000 -h /www
"""
PAGE = "#!/bin/sh\necho; wget -qO- http://app:8000/\n"
ELSEWHERE = "image: nosuch.invalid/app:9\n    build: !reset null"
# A second file in the same folder, as people have for a tool of their own.
EXTRA = "services:\n  mail: {image: busybox, init: true, command: [sleep, inf]}\n"


def env(**changes: str | int) -> str:
    """Return ``.env`` as it is after some changes."""
    values: dict[str, str | int] = {"VERSION": 1, "COLOUR": "green", "PORT": 8080, **changes}
    return "".join(f"{name}={value}\n" for name, value in values.items())


def app(line: str) -> str:
    """Return the override file with one more line about ``app``."""
    return f"services:\n  app:\n    {line}\n    deploy: {{update_config: {{monitor: 0.3s}}}}\n"


FILES = {
    "compose.yaml": COMPOSE,
    "compose.override.yaml": OVERRIDE,
    "extra.yaml": EXTRA,
    "Dockerfile": DOCKERFILE,
    ".dockerignore": "*\n",
    ".env": env(),
    "password.txt": "hunter2\n",
    "page.sh": PAGE,
}
