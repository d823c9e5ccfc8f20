"""Logs are JSON lines that a program reads."""

import json
import logging
import sys

from shoestring.serve.logs import JsonFormatter, log_json


def line(message, *arguments, **fields):
    record = logging.LogRecord("shoestring.serve", logging.INFO, "file", 1, message, arguments, None)
    vars(record).update(fields)
    return json.loads(JsonFormatter().format(record))


def test_a_message_and_a_request_are_one_object_each():
    assert line("a\n%s", "b")["message"] == "a\nb"
    request = line("%s", json.dumps({"request_id": "req_1", "status": 200}))
    assert (request["request_id"], request["status"], request["level"]) == ("req_1", 200, "info")
    assert line("{no json")["message"] == "{no json"


def test_an_error_has_its_traceback():
    try:
        raise ValueError("no")
    except ValueError:
        fields = line("failed", exc_info=sys.exc_info())
    assert "ValueError: no" in fields["error"]


def test_records_go_to_stderr(capsys):
    root, level = logging.getLogger(), logging.getLogger("shoestring").level
    handlers = root.handlers[:]
    try:
        log_json()
        logging.getLogger("shoestring.serve").info("hello")
        assert json.loads(capsys.readouterr().err)["message"] == "hello"
    finally:
        root.handlers[:] = handlers
        logging.getLogger("shoestring").setLevel(level)
