"""Gateways and operators that lie about failed awards: a node believes both of them together.

The gateway's stream stays open and answers pings in all of these: nothing but the log's word could
tell the node before its patience for acknowledgements ends.
"""

from pathlib import Path

import pytest
import trio

from node.executor import ACK_TIMEOUT_S, Executor
from node.service import Node
from pinaivu.codes import Finish, Reason
from pinaivu.keys import SecretKey
from pinaivu.messages import Completion, Failure
from pinaivu.p2p import wire
from pinaivu.typed_data import Signed, signed_from_bytes
from tests.adversaries.stage import both_ways
from tests.integration.node_peers import Conversation, Place, place
from tests.integration.p2p_support import until
from tests.unit import node_support as n


def _report(of: Conversation, by: SecretKey = n.GATEWAY) -> Signed[Failure]:
    made = Failure(
        award_digest=of.digest,
        gateway=by.address,
        reason=Reason.TOO_SLOW,
        acks=1,
        output_tokens=1,
        end_byte=3,
        reported_ms=n.NOW,
    )
    return Signed.by(by, n.DOMAIN, made)


def _free(here: Place) -> int:
    assert here.model
    return here.model.slots.free(n.LOG)


async def _stuck(here: Place, node: Node) -> tuple[Conversation, trio.Event]:
    """An order that waits: one word has come and was acknowledged, the engine says no more yet."""
    go_on = trio.Event()
    words = n.answer_events("It is")
    here.engine.script = [words[0], words[1], go_on, *words[2:]]
    talk = await here.gateway.dispatch(here.job(), await here.offered())
    assert isinstance(await talk.next(), wire.Chunk)
    talk.ack(1)
    (work,) = node.executor._running
    await until(lambda: work.window.acks == 1)
    return talk, go_on


@both_ways
async def test_a_gateway_that_reports_a_failure_and_keeps_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, guarded: bool
) -> None:
    """It would bind two nodes with one job; the log would sell a slot that isn't free.

    The engine is dropped, and what was acknowledged is claimed, at gateway and log.
    """
    if not guarded:
        monkeypatch.setattr(Executor, "void", lambda *_args: None)
    async with place(tmp_path) as here, here.node() as node:
        talk, go_on = await _stuck(here, node)
        assert _free(here) == 1
        await here.coordinator.void(_report(talk))
        if not guarded:
            assert _free(here) == 1
            go_on.set()
            assert isinstance((await talk.rest())[-1], wire.End)
            return
        with trio.fail_after(ACK_TIMEOUT_S / 2):  # not by any other way of stopping
            await until(lambda: _free(here) == 2)
            last = await talk.next()
        assert isinstance(last, wire.NodeRefused)
        assert (last.reason, last.detail) == (Reason.REFUSED, "the award was voided")
        assert last.completion
        claimed = signed_from_bytes(Completion, last.completion).message
        assert (claimed.acks, claimed.finish) == (1, Finish.CANCELLED)
        (handed_in,) = await here.coordinator.completions.reach(1)
        assert handed_in.to_bytes() == last.completion
        await here.engine.gone.reach(1)


@both_ways
@pytest.mark.parametrize("liar", [n.COORDINATOR, n.STRANGER], ids=["the log", "another gateway"])
async def test_an_award_voided_by_who_did_not_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, liar: SecretKey, *, guarded: bool
) -> None:
    """The log's operator can't take an award away; nor can another gateway, by way of the log."""
    if not guarded:
        monkeypatch.setattr(
            Signed, "require", lambda signed, domain, _signer: signed.digest(domain)
        )
    async with place(tmp_path) as here, here.node() as node:
        talk, go_on = await _stuck(here, node)
        await here.coordinator.void(_report(talk, liar))
        go_on.set()
        last = (await talk.rest())[-1]
        assert isinstance(last, wire.End if guarded else wire.NodeRefused)


@both_ways
async def test_an_award_dispatched_after_it_was_voided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, guarded: bool
) -> None:
    """A gateway that reported an award failed can't have the work done nevertheless."""
    if not guarded:
        monkeypatch.setattr(Executor, "void", lambda *_args: None)
    async with place(tmp_path) as here, here.node():
        job, offer = here.job(), await here.offered()
        award = job.award(offer, gateway=n.GATEWAY.address)
        stream = await here.gateway.stream()
        talk = Conversation(
            stream, job, award, Signed.by(n.COORDINATOR, n.DOMAIN, award).digest(n.DOMAIN)
        )
        await here.coordinator.void(_report(talk))
        stream.send(wire.encode(job.dispatch(award)))
        last = await talk.next()
        if not guarded:
            assert isinstance(last, wire.Chunk)
            return
        assert isinstance(last, wire.NodeRefused)
        assert (last.reason, last.completion) == (Reason.REFUSED, None)
        assert here.engine.requests.items == []
        assert _free(here) == 2


@pytest.mark.parametrize("damage", [b"", b"\xff" * 40])
async def test_a_notice_that_is_none_is_passed_over(tmp_path: Path, damage: bytes) -> None:
    """The stream lives on, and so does the work."""
    async with place(tmp_path) as here, here.node() as node:
        talk, go_on = await _stuck(here, node)
        here.coordinator.calls[-1].notify(wire.encode(wire.AwardVoided(damage)))
        here.coordinator.calls[-1].notify(damage)
        go_on.set()
        assert isinstance((await talk.rest())[-1], wire.End)
