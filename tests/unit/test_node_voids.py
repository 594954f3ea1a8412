"""What a node believes of voided awards."""

import pytest

from node.errors import JobRefused
from node.voids import KEPT, Voids
from pinaivu.codes import Reason
from pinaivu.keys import SecretKey
from pinaivu.messages import Award, Failure
from pinaivu.typed_data import Signed, digest
from tests.unit import node_support as n

AWARD: Award = n.JobDraft().award(b"\x01" * 32)
DIGEST = digest(n.DOMAIN, AWARD)


def _report(award_digest: bytes = DIGEST, by: SecretKey = n.GATEWAY) -> Signed[Failure]:
    made = Failure(
        award_digest=award_digest,
        gateway=n.GATEWAY.address,
        reason=Reason.SILENT,
        acks=0,
        output_tokens=0,
        end_byte=0,
        reported_ms=n.NOW,
    )
    return Signed.by(by, n.DOMAIN, made)


def test_an_award_stands_until_both_say_otherwise() -> None:
    voids = Voids(n.DOMAIN)
    voids.require_standing(AWARD, DIGEST)
    voids.note(n.LOG, _report())
    with pytest.raises(JobRefused, match="void"):
        voids.require_standing(AWARD, DIGEST)


def test_another_logs_coordinator_has_no_say() -> None:
    voids = Voids(n.DOMAIN)
    voids.note(b"\x12" * 32, _report())
    voids.require_standing(AWARD, DIGEST)


def test_a_report_is_the_awards_gateways() -> None:
    """Whoever it names: the signature counts."""
    voids = Voids(n.DOMAIN)
    voids.note(n.LOG, _report(by=n.STRANGER))
    voids.require_standing(AWARD, DIGEST)


def test_a_true_report_after_a_false_one_counts() -> None:
    voids = Voids(n.DOMAIN)
    voids.note(n.LOG, _report(by=n.STRANGER))
    voids.note(n.LOG, _report())
    with pytest.raises(JobRefused):
        voids.require_standing(AWARD, DIGEST)


def test_the_oldest_is_forgotten_first() -> None:
    """A coordinator that never stops can't fill the node's memory."""
    voids = Voids(n.DOMAIN)
    for number in range(KEPT):
        voids.note(n.LOG, _report(number.to_bytes(32)))
    voids.note(n.LOG, _report())
    with pytest.raises(JobRefused):
        voids.require_standing(AWARD, DIGEST)
    for number in range(KEPT):
        voids.note(n.LOG, _report(number.to_bytes(32)))
    voids.require_standing(AWARD, DIGEST)
    assert len(voids._reports) == KEPT
