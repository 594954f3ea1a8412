"""The enumerations of the signed types. Codes never change; 0 is invalid unless listed."""

from enum import IntEnum, IntFlag


class JobKind(IntEnum):
    """What is asked of the engine."""

    CHAT = 1
    COMPLETION = 2
    EMBEDDING = 3


class Mode(IntEnum):
    """How the auction is held."""

    LIVE = 1
    STANDING = 2


class Feature(IntFlag):
    """What a job needs and an offer serves; a job sets exactly what it needs, its kind included."""

    TOOLS = 1 << 0
    STRUCTURED = 1 << 1
    LOGPROBS = 1 << 2
    CHOICES = 1 << 3
    IMAGES = 1 << 4
    REASONING = 1 << 5
    CONTINUES = 1 << 6
    SESSION_CACHE = 1 << 7
    EXPLORATION = 1 << 8
    KIND_CHAT = 1 << 32
    KIND_COMPLETION = 1 << 33
    KIND_EMBEDDING = 1 << 34


class Clearing(IntEnum):
    """How an award's price came about."""

    SECOND_SCORE = 1
    LONE = 2
    EXPLORATION = 3


class Finish(IntEnum):
    """How the engine ended, of the lowest choice index."""

    STOP = 1
    LENGTH = 2
    TOOL_CALLS = 3
    CONTENT_FILTER = 4
    CANCELLED = 5
    ENGINE_ERROR = 6
    DRAINED = 7


class Outcome(IntEnum):
    """How a delivery ended for the client."""

    COMPLETE = 1
    CLIENT_GONE = 2
    FAILED = 3


class Status(IntEnum):
    """What became of a job; the first that holds of types.md section 1."""

    COMPLETED = 1
    CANCELLED = 2
    FAILED = 3
    UNSERVED = 4
    UNDELIVERED = 5
    DISPUTED = 6


class Reason(IntEnum):
    """Why: an auction's, a node's, a client's or the books' reason."""

    NONE = 0
    NO_NODES_AVAILABLE = 1
    NO_NODES_WITHIN_LIMITS = 2
    NO_NODE_LEFT = 3
    DEADLINE_PASSED = 4
    EPOCH_ENDED = 5
    REFUSED = 10
    REFUSED_PROMPT_COUNT = 11
    REFUSED_EXPIRED = 12
    REFUSED_CAPACITY = 13
    SILENT = 14
    STREAM_BROKEN = 15
    PROTOCOL_VIOLATION = 16
    ENGINE_ERROR = 17
    TOO_SLOW = 18
    PASSED_OVER = 19
    CLIENT_GONE = 30
    NOT_REPORTED = 40
    BELOW_ACKNOWLEDGED = 41
    COMMITMENT_MISMATCH = 50
    COUNTS_DIFFER = 51
    NO_COMPLETION = 52
    CLIPPED = 53


class RefusalReason(IntEnum):
    """Why a claimed old receipt is not re-issued."""

    IN_LOG = 1
    SUPERSEDED = 2
    FOREIGN_SIGNER = 3
    JOB_HAS_OTHER = 4
    CLAIM_PERIOD_OVER = 5
    EVIDENCE_WRONG = 6


class Role(IntEnum):
    """What a party is to a log; statements use 1–3, peer bindings 2 and 4."""

    PAYER = 1
    NODE = 2
    ACCOUNT = 3
    GATEWAY = 4


class CallOutcome(IntEnum):
    """What came of calling a node in the live round."""

    BID = 1
    SILENT = 2
    LATE = 3
    INVALID = 4
