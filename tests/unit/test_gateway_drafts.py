"""Jobs as they are signed, and demands as they are read."""

from uuid import UUID

import msgspec
import pytest

from gateway.demands import read_demand
from gateway.drafts import draft_job, uuid7
from gateway.errors import ApiError
from pinaivu.codes import Feature, Mode
from pinaivu.commitments import AckCounter, request_commitment, request_digest
from pinaivu.encoding import jcs
from pinaivu.fields import MAX_U64
from pinaivu.typed_data import Signed
from tests.unit.gateway_facts import (
    BODY,
    DOMAIN,
    GATEWAY,
    IDENTITY,
    MODEL,
    NOW,
    Drawn,
    demand,
    draft,
    drafted,
    grant,
    model,
)


def test_job_id_is_a_uuid7_of_its_time() -> None:
    found = UUID(bytes=uuid7(NOW, Drawn()))
    assert (found.version, found.variant) == (7, "specified in RFC 4122")
    assert int.from_bytes(found.bytes[:6]) == NOW


def test_job_commits_to_the_request_and_not_to_how_it_is_delivered() -> None:
    found, streamed = draft(), draft(stream=True)
    expected = request_commitment(found.salts.request, request_digest(BODY))
    assert found.job.message.request_commitment == expected
    assert streamed.job.message.request_commitment == expected


def test_the_body_is_not_read_again_for_its_digest() -> None:
    """Of a long one that takes a while; whoever read it has done so, beside the loop."""
    read = msgspec.structs.replace(demand(), digest=b"\x66" * 32)
    found = drafted(read)
    expected = request_commitment(found.salts.request, read.digest)
    assert found.job.message.request_commitment == expected
    assert demand().digest == request_digest(BODY)


def test_job_is_signed_and_names_what_is_asked() -> None:
    found = draft(pinaivu={"auction": "standing", "value_of_time": 0}, tools=[])
    job = found.job.message
    found.job.require(DOMAIN, GATEWAY.address)
    assert (job.mode, job.value_of_time) == (Mode.STANDING, 0)
    assert job.features == Feature.KIND_CHAT
    assert (job.max_output_tokens, job.deadline_ms) == (100, NOW + 60_000)
    assert draft().job.message.value_of_time == MAX_U64
    assert found.request_id == str(UUID(bytes=job.job_id))


def test_every_attempt_has_a_chain_of_its_own() -> None:
    found = draft()
    job = found.job.message
    assert len(set(job.anchors)) == 3
    for rank, chain in enumerate(found.chains, start=1):
        counter = AckCounter(job.job_id, rank, job.max_output_tokens, job.anchors[rank - 1])
        counter.accept(chain.length, chain.preimage(chain.length))


@pytest.mark.parametrize(
    ("asked", "units_left", "cost"), [(None, None, 10**6), (500, None, 500), (500, 20, 20)]
)
def test_limits_are_the_least_of_callers_grants_and_quotas(
    asked: int | None, units_left: int | None, cost: int
) -> None:
    terms = {"max_cost_units": asked, "max_price_out": 10**9} if asked else {}
    found = draft_job(
        demand(pinaivu=terms),
        grant(),
        IDENTITY,
        attempts=1,
        units_left=units_left,
        deadline_after_ms=1,
        now_ms=NOW,
        random=Drawn(),
    )
    assert found.job.message.max_cost == cost
    assert found.job.message.max_price_out == 10**6  # never above the grant's
    assert isinstance(found.grant, Signed)


def test_output_is_counted_over_all_choices() -> None:
    assert demand(n=3).max_output_tokens == 300
    assert demand(max_tokens=None).max_output_tokens == 64


def test_default_output_fits_into_what_the_prompt_leaves() -> None:
    words = "lamp " * 1000
    long = demand(messages=[{"role": "user", "content": words}], max_tokens=None)
    room = model().context_tokens - long.prompt_tokens
    assert 0 < long.max_output_tokens <= min(64, room)


def test_prompt_longer_than_the_context_is_refused() -> None:
    with pytest.raises(ApiError, match="context of 2048 tokens") as caught:
        demand(messages=[{"role": "user", "content": "lamp " * 3000}])
    assert (caught.value.status, caught.value.param) == (400, "messages")


def test_prompt_that_cannot_be_counted_is_refused() -> None:
    parts = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    with pytest.raises(ApiError) as caught:
        demand(messages=[{"role": "user", "content": parts}])
    assert caught.value.param == "messages[0].content[0]"


def test_model_that_is_not_served_is_404() -> None:
    with pytest.raises(ApiError, match="/v1/models") as caught:
        read_demand(jcs(BODY), {}, default_output_tokens=1)
    assert (caught.value.status, caught.value.param) == (404, "model")
    assert MODEL in str(caught.value)
