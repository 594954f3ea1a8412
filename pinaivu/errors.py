"""Errors by blame: who has to do something about it.

    PinaivuError
    ├── InvalidEncoding    bytes or text that are no value of the expected type
    ├── PeerFault          a counterparty broke the protocol or signed something false
    ├── TransportFailure   the network, a process or a disk failed; the same call may succeed later
    └── Misconfigured      this installation is set up wrongly; the message says what to change

Packages derive their own errors from one of the four, so a caller can decide by family whether to
refuse, to retry or to stop.
"""


class PinaivuError(Exception):
    """Base of every error this project raises on purpose."""


class InvalidEncoding(PinaivuError, ValueError):
    """Bytes or text that are no value of the expected type. Nothing was changed."""


class PeerFault(PinaivuError):
    """A counterparty broke the protocol or signed something false; retrying can't help."""


class TransportFailure(PinaivuError):
    """A connection, process or disk failed; the same call may succeed later."""


class Misconfigured(PinaivuError):
    """This installation is set up wrongly; the message says what to change."""


def flatten(error: BaseException) -> list[BaseException]:
    """The errors inside nested exception groups, as people want to read them."""
    if isinstance(error, BaseExceptionGroup):
        return [inner for member in error.exceptions for inner in flatten(member)]
    return [error]
