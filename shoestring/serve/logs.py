"""Logs of a service for others: one JSON object a line, without prompts, answers, keys or queries."""

import json
import logging
import sys
from datetime import UTC, datetime


class JsonFormatter(logging.Formatter):
    """Records as JSON. A message that is a JSON object itself, as of a request, becomes part of the line."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "part": record.name}
        text = record.getMessage()
        try:
            fields = json.loads(text) if text.startswith("{") else None
        except ValueError:
            fields = None
        line |= fields if isinstance(fields, dict) else {"message": text}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log_json() -> None:
    """Send all records of the service to stderr as JSON, those of requests too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    logging.getLogger("shoestring").setLevel(logging.INFO)
