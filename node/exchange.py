"""Fair exchange: how far a node may run ahead of what the gateway has acknowledged.

The first frame goes out on trust. Nothing follows before preimage 1, and from then on no frame is
sent while 32 or more output tokens are unacknowledged; an engine's event is never cut, so the last
one may overshoot by what it holds. At risk are the prompt's work and one frame, then one window.
"""

from typing import Final

from pinaivu.commitments import TOKENS_PER_ACK, AckCounter
from pinaivu.messages import Award
from pinaivu.p2p import wire


class Window:
    """One attempt's account: what was put on the way, what was acknowledged. Pure."""

    def __init__(self, award: Award) -> None:
        # A later rank's chain is as long as the job allows; what is left of it is all we can use.
        self._acks: Final = AckCounter(
            award.job_id, award.rank, award.max_output_tokens, award.anchor
        )
        self._first_sent = False
        self._tokens = 0

    @property
    def acks(self) -> int:
        """How many acknowledgements are held."""
        return self._acks.acks

    @property
    def last_preimage(self) -> bytes:
        """The preimage that proves them; zeros for none."""
        return self._acks.last_preimage

    @property
    def room(self) -> bool:
        """Whether another event may be put on the way."""
        if self._first_sent and not self.acks:
            return False
        return self._tokens - self._acks.tokens < TOKENS_PER_ACK

    @property
    def full_at(self) -> int:
        """The output's count from which on there is no room; below it, it needn't be `put`."""
        return self._acks.tokens + TOKENS_PER_ACK

    def put(self, tokens: int) -> None:
        """An event joined the frame to be sent; `tokens` is the output's count with it."""
        self._tokens = max(self._tokens, tokens)

    def sent(self) -> None:
        """A frame went out."""
        self._first_sent = True

    def accept(self, ack: wire.Ack) -> None:
        """Take an acknowledgement; `BadPreimage` where it does not lead to the one before."""
        self._acks.accept(ack.index, ack.preimage)
