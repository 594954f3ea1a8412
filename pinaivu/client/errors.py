"""Why an answer is not handed over.

    PinaivuError
    ├── PeerFault
    │   └── AnswerRefuted       a lie: a step of the verification failed
    ├── TransportFailure
    │   └── ReceiptMissing      no bundle came in time, or the answer names none
    └── AnswerUnproven          a step that the policy needs could not be judged

Inside an SDK they arrive in its own form (`refusal` in `pinaivu.client.guard`): the SDK takes an
exception of its transport for a lost connection and would send the request, and pay, again.
"""

from typing import ClassVar

from pinaivu.errors import PeerFault, PinaivuError, TransportFailure
from pinaivu.verify.report import Report


class AnswerRefuted(PeerFault):
    """What was signed contradicts what was sent, got, promised or allowed."""

    code: ClassVar = "answer_refuted"

    def __init__(self, message: str, report: Report | None = None) -> None:
        super().__init__(message)
        self.report = report


class AnswerUnproven(PinaivuError):
    """Nothing contradicts the answer, and something that the policy needs does not show it."""

    code: ClassVar = "answer_unproven"

    def __init__(self, message: str, report: Report | None = None) -> None:
        super().__init__(message)
        self.report = report


class ReceiptMissing(TransportFailure):
    """There is no receipt for the answer, or none in time."""

    code: ClassVar = "receipt_missing"
    report: ClassVar = None


Unverified = AnswerRefuted | AnswerUnproven | ReceiptMissing
UNVERIFIED = (AnswerRefuted, AnswerUnproven, ReceiptMissing)
