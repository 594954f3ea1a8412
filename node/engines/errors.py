"""What can go wrong with an engine.

TransportFailure
├── EngineRefused       it answered with an HTTP status other than 200
├── EngineUnreachable   no connection, or it closed before the first byte of an answer
├── EngineBrokeOff      an answer began and did not end as it should
├── EngineTimedOut      it was silent for too long
└── EngineDown          the supervisor has no running engine at this moment
Misconfigured
├── EngineStartFailed   it ended or hung before it was ready; carries the end of its log
└── EngineUnusable      it runs, but not what is to be served, or the model's files are wrong
"""

from typing import Final

from pinaivu.errors import Misconfigured, TransportFailure

CLIENT_ERRORS: Final = range(400, 500)
"""With one of these as its status, the request is at fault and no other attempt will help."""


class EngineRefused(TransportFailure):
    """The engine answered with `status`; `body` is its explanation, cut at 64 KiB."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"the engine answered {status}: {body[:500].decode(errors='replace')}")
        self.status = status
        self.body = body


class EngineUnreachable(TransportFailure):
    """No connection, or it was closed before the first byte of an answer; nothing was received."""


class EngineBrokeOff(TransportFailure):
    """The answer is incomplete or no answer at all; what came before must not pass for a whole."""


class EngineTimedOut(TransportFailure):
    """The engine was silent for longer than it may be."""


class EngineDown(TransportFailure):
    """No engine is up; the supervisor is starting one."""


class EngineStartFailed(Misconfigured):
    """The engine ended, or was not ready in time. `log_tail` holds the last lines it wrote."""

    def __init__(self, reason: str, log_tail: str = "") -> None:
        super().__init__(f"{reason}\n{log_tail}" if log_tail else reason)
        self.reason = reason
        self.log_tail = log_tail


class EngineUnusable(Misconfigured):
    """The engine or the model's files are not what this node is to serve."""
