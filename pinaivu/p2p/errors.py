"""What can go wrong between two peers.

TransportFailure            the same thing may work later
├── ConnectFailed           nobody answered at the address, or the handshake failed
├── NotConnected            there is no connection to open a stream on
├── StreamBroken            the stream ended without its end mark: what came is not whole
├── StreamEnded             the peer ended the stream on purpose and has sent everything
├── SlowPeer                the peer doesn't take what is sent, or end a frame; it was dropped
├── NoReadyStream           the peer has no unused stream in the pool
└── CallTimeout             no reply in time
PeerFault                   the peer broke the protocol
├── WrongPeer               somebody else than the expected key answered, or no key of our kind
├── TooManyStreams          more unused streams than a peer may hold
├── FrameTooLarge           a frame above the hard limit was announced; the peer is dropped
├── BadEnvelope             a frame that is no envelope, or of an unknown version
└── CallRefused             the peer's handler answered with an error
"""

from pinaivu.errors import PeerFault, PinaivuError, TransportFailure


class ConnectFailed(TransportFailure):
    """Nobody answered at the address, or the handshake failed."""


class NotConnected(TransportFailure):
    """There is no live connection to this peer."""


class StreamBroken(TransportFailure):
    """The stream ended without its end mark: what has arrived is not whole."""


class StreamEnded(TransportFailure):
    """The peer ended the stream on purpose; everything it sent has been received."""


class SlowPeer(StreamBroken):
    """The peer doesn't take what is sent, or doesn't finish what it began; it has been dropped."""


class NoReadyStream(TransportFailure):
    """The pool holds no unused stream of this peer."""


class CallTimeout(TransportFailure):
    """No reply came in time; whether the peer acted is unknown."""


class WrongPeer(PeerFault):
    """The key that answered is not the expected one, or not a secp256k1 key."""


class TooManyStreams(PeerFault):
    """The peer laid more streams ready than it may hold."""


class FrameTooLarge(PeerFault):
    """The peer announced a frame above the hard limit."""


class BadEnvelope(PeerFault):
    """A frame is no envelope of this protocol, or of a version we don't speak."""


class CallRefused(PeerFault):
    """The peer's handler answered the call with an error; its text is the message."""


class CallBusy(TransportFailure):
    """The peer has too many calls waiting and did not act on this one."""


def is_expected(error: BaseException) -> bool:
    """Whether an error, or each one of a nursery's group, is one this project raises on purpose.

    Anything else is a bug that somebody has to see.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(is_expected(inner) for inner in error.exceptions)
    return isinstance(error, PinaivuError)
