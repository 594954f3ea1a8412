"""The coordinator's errors.

PeerFault
└── JobRefused    this job or message can't be accepted; carries code, reason and advice
Misconfigured
└── LogDiverged   the database and the chain tell different histories; refuse to serve
"""

from pinaivu.codes import Reason
from pinaivu.errors import Misconfigured, PeerFault
from pinaivu.p2p import wire


class JobRefused(PeerFault):
    """A job or message that can't be accepted; nothing was changed."""

    def __init__(
        self, code: str, detail: str, reason: int = Reason.NONE, retry_after_ms: int = 0
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.reason = reason
        self.retry_after_ms = retry_after_ms

    def frame(self) -> wire.Refused:
        """The refusal as it goes to the caller."""
        return wire.Refused(self.code, str(self), int(self.reason), self.retry_after_ms)


class LogDiverged(Misconfigured):
    """The database is behind the chain or tells another history: refuse to serve."""
