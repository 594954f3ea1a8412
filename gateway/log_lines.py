"""How a gateway's log is written: plain lines, or one JSON object each.

A JSON line has ``time`` (RFC 3339, UTC), ``level``, ``logger``, ``message``, and the members that
the caller gave as ``extra={"fields": {…}}``. What is logged is the callers' business: ids, counts
and times; never a prompt, an answer, a key, or a text by which a peer might quote one.
"""

import logging
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

Format = Literal["text", "json"]
_TEXT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"
_encode: Final = msgspec.json.Encoder(enc_hook=str).encode


class JsonLines(logging.Formatter):
    """One JSON object for each record."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        given = getattr(record, "fields", None)
        return _encode(line | (given if isinstance(given, dict) else {})).decode("utf-8")


def begin_logging(level: str, form: Format) -> None:
    """Have the process's log go to the error stream in this form."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=level, handlers=[handler])
    for chatty in ("alembic", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
