"""The share of jobs that goes to newcomers, with the parameters of a local network."""

from hashlib import sha256
from uuid import UUID

import pytest

from pinaivu.chain.facts import ContractFacts
from pinaivu.codes import Clearing
from pinaivu.messages import Award
from pinaivu.typed_data import signed_from_bytes
from pinaivu.verify import Verifier, development
from tests.e2e.stage import Stage, request_id_of

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.chain,
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::pinaivu.attestation.simulated.SimulatedDocumentWarning"),
]

_SHARE_PPM = 20_000
_MOST = 600
"""Requests until an exploration job is sure, but for six chances in a million."""


def _ask_until_explored(stage: Stage) -> tuple[str, Award]:
    for _ in range(_MOST):
        request_id = request_id_of(stage.ask("Yes or no?", max_tokens=1))
        query = "SELECT award FROM attempt WHERE job_id = ? AND rank = 1"
        ((raw,),) = stage.gateway_rows(query, UUID(request_id).bytes)
        award = signed_from_bytes(Award, raw).message
        drawn = int.from_bytes(sha256(b"explore" + award.nonce).digest()[:8])
        explores = drawn * 10**6 < _SHARE_PPM << 64
        assert explores == (award.clearing == Clearing.EXPLORATION)
        if explores:
            return request_id, award
    pytest.fail(f"no exploration job among {_MOST}")


def test_a_newcomer_gets_a_job_by_the_hash_and_it_is_proven(stage: Stage) -> None:
    """Award and receipt say exploration, and V7 reruns it from the transcript."""
    request_id, award = _ask_until_explored(stage)
    receipt = stage.await_final(request_id)
    segment = receipt.segments[0]
    assert (segment.node, segment.clearing) == (award.node, Clearing.EXPLORATION)
    raw = stage.get(f"/v1/receipts/{request_id}/bundle").content
    client = stage.network.chain.client
    policy = development(client.deployment.domain).without_copies()
    report = Verifier(policy, ContractFacts(client)).verify(raw)
    assert report.exit_code == 0, report.to_text()
