"""The node's errors.

PeerFault
├── JobRefused          a dispatch this node does not serve; carries the reason code for the wire
│   └── AwardUsed       the award has been run before, perhaps by an earlier process
└── DirectoryWrong      a log's directory says what the chain does not confirm
TransportFailure
└── DirectoryUnavailable  a log's directory did not answer
Misconfigured
├── BadConfig           the configuration file; says where and what
├── NotRegistered       the chain does not know this node as it runs; says what registers it
└── WrongModel          the model's files are not what the registry says
"""

from pinaivu.codes import Reason
from pinaivu.errors import Misconfigured, PeerFault, TransportFailure


class JobRefused(PeerFault):
    """A dispatch this node does not serve; `reason` is 10–18, the message says why.

    `engine_status`: what the engine answers to such a request, where that is the reason.
    """

    def __init__(self, reason: Reason, detail: str, engine_status: int = 0) -> None:
        super().__init__(detail)
        self.reason = reason
        self.engine_status = engine_status


class AwardUsed(JobRefused):
    """The award has been run before; an award runs once, ever."""

    def __init__(self, digest: bytes) -> None:
        super().__init__(Reason.REFUSED, f"award 0x{digest.hex()} has been used before")


class DirectoryWrong(PeerFault):
    """A log's directory says what the chain does not confirm; nothing of it was taken over."""


class DirectoryUnavailable(TransportFailure):
    """A log's directory did not answer, or not with a directory."""


class BadConfig(Misconfigured):
    """The configuration file is missing or wrong; the message names the place."""


class NotRegistered(Misconfigured):
    """The chain does not know this node as it runs; the message says what registers it."""


class WrongModel(Misconfigured):
    """The model's files are not what card or registry say."""
