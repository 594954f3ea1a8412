"""A request through the whole network: answered, receipted, settled, paid out, and proven."""

import httpx
import openai
import pytest

from pinaivu.chain.facts import ContractFacts
from pinaivu.codes import Reason, Status
from pinaivu.local import demo
from pinaivu.local.folder import MODEL, NODES
from pinaivu.messages import Receipt
from pinaivu.tokens import Tokenizer
from pinaivu.verify import Copies, Verifier, development
from tests.e2e.stage import Stage, request_id_of

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.chain,
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::pinaivu.attestation.simulated.SimulatedDocumentWarning"),
]

PROMPT = "What is the capital of France? Answer in one sentence."


def test_streamed_and_whole_answers_are_one_and_are_paid_to_the_unit(stage: Stage) -> None:
    """The same request gives the same text both ways; wallets get what the receipts say."""
    demo.pay_out(stage.network)
    before = demo.read_wallets(stage.network)
    whole = stage.ask(PROMPT, max_tokens=48)
    streamed = stage.stream(PROMPT, max_tokens=48).ended()
    assert streamed.error is None
    content = whole.choices[0].message.content
    assert content
    assert "Paris" in content
    assert streamed.text == content
    assert whole.choices[0].finish_reason == streamed.finish_reason

    receipts = [stage.await_final(request_id_of(whole)), stage.await_final(streamed.request_id)]
    assert [r.status for r in receipts] == [Status.COMPLETED] * 2
    usage = whole.usage
    assert usage
    assert usage.completion_tokens == receipts[0].segments[0].output_gateway
    _require_paid(stage, before, receipts)


def _require_paid(stage: Stage, before: demo.Wallets, receipts: list[Receipt]) -> None:
    demo.pay_out(stage.network)
    after = demo.read_wallets(stage.network)
    segments = [segment for receipt in receipts for segment in receipt.segments]
    for name in NODES:
        node = stage.network.folder.key(name).address
        due = sum(s.amount - s.fee for s in segments if s.node == node)
        assert after.held[name] - before.held[name] == due
        assert after.unpaid[name] == 0
    assert sum(s.amount for s in segments) > 0


def test_a_live_round_asks_every_node_and_the_second_score_pays(stage: Stage) -> None:
    """All three nodes bid; the price is the winner's own or above, as the replay says."""
    receipt = stage.await_final(request_id_of(stage.ask(PROMPT, max_tokens=8)))
    url = f"{stage.network.log_url}/transcripts/{_text(receipt)}"
    (transcript,) = httpx.get(url, timeout=10).json()["transcripts"]
    assert len(transcript["calls"]) == len(NODES)
    assert any("bid" in call for call in transcript["calls"])
    assert receipt.bids == len(NODES)


def test_the_holders_bundle_proves_everything_but_the_model(stage: Stage) -> None:
    """With request, response and tokenizer at hand, V1 to V12 hold; V1 is SIMULATED."""
    answer = stage.ask(PROMPT, max_tokens=24, seed=7)
    stage.await_final(request_id_of(answer))
    raw = stage.get(f"/v1/receipts/{request_id_of(answer)}/bundle").content
    client = stage.network.chain.client
    tokenizer = Tokenizer.from_directory(stage.network.folder.model_files)
    verifier = Verifier(development(client.deployment.domain), ContractFacts(client))
    response = answer.model_dump()
    report = verifier.verify(raw, Copies(response=response, tokenizer=tokenizer))
    assert report.exit_code == 0, report.to_text()


def test_models_usage_and_keys(stage: Stage) -> None:
    """The model on offer is listed, usage grows by what was asked, a wrong key gets a 401."""
    assert [model.id for model in stage.sdk.models.list()] == [MODEL]
    before = stage.get("/v1/usage").json()["total"]
    stage.await_final(request_id_of(stage.ask(PROMPT, max_tokens=8)))
    after = stage.get("/v1/usage").json()["total"]
    assert after["requests"] == before["requests"] + 1
    assert after["tokens"] > before["tokens"]
    stranger = openai.OpenAI(base_url=str(stage.sdk.base_url), api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_bad_requests_are_refused_and_cost_nothing(stage: Stage) -> None:
    """Unknown model, malformed body, duplicate members: an error that names the fault."""
    spent = stage.get("/v1/usage").json()["total"]["units"]
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        stage.ask(PROMPT, model="no-such-model")
    with pytest.raises(openai.BadRequestError):
        stage.ask(PROMPT, max_tokens=-1)
    twice = b'{"model": "a", "model": "b", "messages": []}'
    for body in (b"{", twice):
        answer = httpx.post(
            f"{stage.network.gateway_url}/v1/chat/completions",
            content=body,
            headers={"Authorization": f"Bearer {stage.api_key}"},
            timeout=10,
        )
        assert answer.status_code == httpx.codes.BAD_REQUEST
        assert answer.json()["error"]["message"]
    assert stage.get("/v1/usage").json()["total"]["units"] == spent


def test_nobody_within_the_limits_is_a_503_with_a_zero_receipt(stage: Stage) -> None:
    """A price no node serves for: the cheapest offer is named, the receipt costs nothing."""
    with pytest.raises(openai.InternalServerError) as caught:
        stage.ask(PROMPT, max_tokens=8, extra_body={"pinaivu": {"max_price_out": 1}})
    assert caught.value.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert "no_nodes_within_limits" in str(caught.value.body)
    newest = stage.newest_job()
    assert newest
    receipt = stage.await_final(newest)
    assert (receipt.status, receipt.total) == (Status.UNSERVED, 0)
    assert receipt.reason == Reason.NO_NODES_WITHIN_LIMITS


def _text(receipt: Receipt) -> str:
    raw = receipt.job_id.hex()
    return "-".join((raw[:8], raw[8:12], raw[12:16], raw[16:20], raw[20:]))
