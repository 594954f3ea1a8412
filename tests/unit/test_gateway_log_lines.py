"""What a gateway's log looks like."""

import json
import logging

from gateway.log_lines import JsonLines


def lines(level: int, message: str, *arguments: object, **more: object) -> dict[str, object]:
    record = logging.LogRecord("gateway.x", level, "f.py", 1, message, arguments, None)
    record.__dict__.update(more)
    raw = JsonLines().format(record)
    assert "\n" not in raw
    found = json.loads(raw)
    assert isinstance(found, dict)
    return found


def test_a_record_is_one_json_object() -> None:
    found = lines(logging.WARNING, "two\nlines of %s", "it")
    time = str(found.pop("time"))
    assert (time[10], time[-6:]) == ("T", "+00:00")
    assert found == {"level": "WARNING", "logger": "gateway.x", "message": "two\nlines of it"}


def test_fields_are_members() -> None:
    found = lines(logging.INFO, "request", fields={"request_id": "id-1", "units": 7, "node": None})
    assert (found["request_id"], found["units"], found["node"]) == ("id-1", 7, None)


def test_an_exception_stays_on_the_line() -> None:
    error = ValueError("why")
    found = lines(logging.ERROR, "failed", exc_info=(ValueError, error, None))
    assert str(found["exception"]).endswith("ValueError: why")
