"""The daemons' log: one JSON object a line on stderr, data kept apart from the message.

``log.info("connected", extra={"node": ...})`` becomes
``{"time": ..., "level": "info", "logger": ..., "message": "connected", "node": ...}``.
What is logged while a request is served carries the request's id (``REQUEST``) as ``request``.
Values of secret variables that a text, a traceback or data brings along are hidden (masking.py).
"""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

from specs.kit import jsontext, masking

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


REQUEST: ContextVar[str] = ContextVar("request", default="")
# Who sent it (specs.made_by, ``who``); events of what the request does carry it.
ASKED_BY: ContextVar[str] = ContextVar("asked_by", default="")


class JsonFormatter(logging.Formatter):
    """One line for each record; a traceback goes into ``error`` with its newlines escaped."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": masking.text(record.getMessage()),
        }
        if request := REQUEST.get():
            line["request"] = request
        # The names of ``extra`` are ours; what is in it may be anybody's.
        line.update(
            (name, masking.data(value)) for name, value in vars(record).items() if name not in _OWN
        )
        if record.exc_info:
            line["error"] = masking.text(self.formatException(record.exc_info))
        return jsontext.shown(line, default=_shown)


def _shown(value: object) -> str:
    return masking.text(str(value))


def configure(level: int = logging.INFO) -> None:
    """Send everything of ``level`` and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
