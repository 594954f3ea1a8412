"""Every part of the network is killed once, at a chosen point; nothing is lost or billed twice.

Each test holds or waits for the network at the point, by a condition, and uses SIGKILL. After each:
no answer was shown that isn't whole, there is one receipt, and all of it settles.
"""

from uuid import UUID

import pytest

from pinaivu.codes import Reason, Status
from pinaivu.encoding import to_hex
from pinaivu.local.folder import NODES
from pinaivu.messages import Receipt
from tests.e2e.stage import Stage, Streaming, request_id_of, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.chain,
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::pinaivu.attestation.simulated.SimulatedDocumentWarning"),
]

STORY = "Write a long story about a lighthouse keeper and the sea, in many paragraphs."
LONG = 240


def _require_whole(stream: Streaming, receipt: Receipt) -> None:
    """The client saw a proper end, and the receipt's segments tile exactly the text it got."""
    assert stream.error is None
    assert stream.finish_reason in ("stop", "length")
    served = [segment for segment in receipt.segments if segment.rank]
    ends = [segment.end_byte for segment in served]
    assert [segment.start_byte for segment in served] == [0, *ends[:-1]]
    assert ends[-1] == len(stream.text.encode())


def _only(stage: Stage, node: str) -> dict[str, object]:
    """The caller's demand for one node."""
    return {"pinaivu": {"allow": [to_hex(stage.network.folder.key(node).address)]}}


def test_winner_killed_before_its_first_token(stage: Stage) -> None:
    """The next rank serves; the client notices nothing, the dead node is paid nothing."""
    known = stage.newest_job()
    with stage.frozen(*(stage.engine(name) for name in NODES)):
        stream = stage.stream(STORY, max_tokens=48)
        request_id, winner = stage.await_award(known)
        stage.crash(winner)
    stream.ended()
    receipt = stage.await_final(request_id)
    stage.revive_node(winner)

    _require_whole(stream, receipt)
    assert receipt.status == Status.COMPLETED
    first, second = (segment for segment in receipt.segments if segment.rank)
    assert first.result in (Reason.SILENT, Reason.STREAM_BROKEN)
    assert (first.amount, first.end_byte) == (0, 0)
    assert second.prompt_billed > 0


def test_winner_killed_after_its_first_token(stage: Stage) -> None:
    """The next rank goes on where the text ended; the dead node, without completion, is unpaid."""
    known = stage.newest_job()
    stream = stage.stream(STORY, max_tokens=LONG)
    request_id, winner = stage.await_award(known)
    stream.await_text()
    stage.crash(winner)
    stream.ended()
    receipt = stage.await_final(request_id)
    stage.revive_node(winner)

    _require_whole(stream, receipt)
    assert receipt.status == Status.COMPLETED
    first, second = (segment for segment in receipt.segments if segment.rank)
    assert first.result == Reason.STREAM_BROKEN
    assert first.end_byte > 0
    assert first.amount == 0
    assert second.amount > 0


def test_coordinator_killed_before_the_receipt(stage: Stage) -> None:
    """It is not in the data path: the answer goes on; the next epoch writes the receipt."""
    known = stage.newest_job()
    stream = stage.stream(STORY, max_tokens=LONG)
    request_id, _ = stage.await_award(known)
    stream.await_text()
    stage.crash("coordinator")
    stream.ended()
    assert stage.receipt(request_id) is None
    stage.network.start_coordinator()
    receipt = stage.await_final(request_id)
    stage.network.await_market()

    _require_whole(stream, receipt)
    assert receipt.status == Status.COMPLETED
    assert receipt.total > 0
    awarded = stage.coordinator_rows("SELECT max(number) FROM epoch")[0][0]
    assert receipt.epoch == awarded > 1


def test_coordinator_killed_between_receipt_and_settlement(stage: Stage) -> None:
    """A signed batch that nobody submitted is signed anew by the next epoch, and settles once."""
    submitter = stage.network.children["submitter"].pid
    with stage.frozen(submitter):
        request_id = request_id_of(stage.ask("Name a colour.", max_tokens=8))

        def batched() -> bool:
            found = stage.receipt(request_id)
            return found is not None and found[1] == "batched"

        until("the receipt is in a signed batch", batched)
        stage.crash("coordinator")
        stage.network.start_coordinator()
        assert stage.receipt(request_id) is not None
    receipt = stage.await_final(request_id)
    stage.network.await_market()

    assert receipt.status == Status.COMPLETED
    epochs = stage.coordinator_rows("SELECT max(number) FROM epoch")[0][0]
    assert receipt.epoch == epochs - 1


def test_gateway_killed_in_mid_stream(stage: Stage) -> None:
    """The client sees an error, never a short answer; acknowledged tokens are paid, no more."""
    known = stage.newest_job()
    stream = stage.stream(STORY, max_tokens=LONG)
    request_id, _ = stage.await_award(known)
    stream.await_text()
    stage.crash("gateway")
    stream.ended()
    assert stream.error is not None
    assert stream.finish_reason is None
    stage.network.start_gateway()
    receipt = stage.await_final(request_id)

    assert receipt.status == Status.FAILED
    (segment,) = receipt.segments
    assert segment.output_billed <= LONG
    assert receipt.total == segment.amount


def test_gateway_killed_after_the_delivery(stage: Stage) -> None:
    """The signed delivery was durable: the gateway's next life hands it over."""
    known = stage.newest_job()
    stream = stage.stream(STORY, max_tokens=LONG)
    request_id, _ = stage.await_award(known)
    stream.await_text()
    with stage.frozen(*stage.pids("coordinator")):
        stream.ended()
        job_id = UUID(request_id).bytes
        query = "SELECT job_id FROM outbox WHERE job_id = ?"
        until("the delivery is durable", lambda: stage.gateway_rows(query, job_id))
        stage.crash("gateway")
    stage.network.start_gateway()
    receipt = stage.await_final(request_id)

    _require_whole(stream, receipt)
    assert receipt.status == Status.COMPLETED
    assert receipt.total > 0


def test_chain_killed(stage: Stage) -> None:
    """Who asks notices nothing; what the chain forgot in the crash settles again, once.

    Gateway and coordinator go on with what they have read of the chain: all nodes are asked before.
    """
    for name in NODES:
        stage.await_final(
            request_id_of(stage.ask("Hello!", max_tokens=1, extra_body=_only(stage, name)))
        )
    chain = stage.network.chain.process
    state = chain.state
    written = state.stat().st_mtime_ns
    until("the chain has written its state", lambda: state.stat().st_mtime_ns > written)
    chain.kill()
    stream = stage.stream("Name three fruits.", max_tokens=32).ended()
    receipt = stage.await_receipt(stream.request_id)
    chain.start()
    assert stage.await_final(stream.request_id) == receipt

    _require_whole(stream, receipt)
    assert receipt.status == Status.COMPLETED
