"""Gateways and nodes that cheat each other: what the honest side loses at most, and what is said.

The design's bounds: a node risks its prefill and one frame, then one window of 32 tokens; a payer
pays for what its gateway acknowledged, or for what both counted. An engine's event is never cut, so
a window may overshoot by the last event's tokens.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
import trio

from gateway import relay as relays
from gateway.relay import Relay
from node.exchange import Window
from node.journal import Journal
from pinaivu import metering
from pinaivu.codes import Finish, Outcome, Reason, Status
from pinaivu.commitments import AckChain, AckCounter
from pinaivu.messages import Receipt, Segment
from pinaivu.p2p import wire
from tests.adversaries.exchange_stage import EVENT, MOST, SOON, TEXT, WINDOW, Deal, amount, dealing
from tests.adversaries.stage import both_ways
from tests.integration.gateway_support import Network, network
from tests.integration.scripted_node import Script, Work, speaks
from tests.unit import node_support as n
from tests.unit.gateway_facts import model

WHOLE = n.tokenizer().count_text(TEXT + " ")
Patch = pytest.MonkeyPatch


def without_window(monkeypatch: Patch) -> None:
    """Without the guard: a node that sends what it has, whoever has accepted what."""
    monkeypatch.setattr(Window, "room", property(lambda _self: True))


# Gateways that lie to a real node


@both_ways
async def test_a_gateway_that_acknowledges_nothing(
    tmp_path: Path, monkeypatch: Patch, *, guarded: bool
) -> None:
    """The node loses its prefill and one frame. It claims nothing, and is paid nothing."""
    if not guarded:
        without_window(monkeypatch)
    async with dealing(tmp_path, ack_timeout_s=SOON) as deal:
        await deal.take_rest()
        assert len(deal.frames) == 2 or not guarded
        assert (deal.got <= WINDOW + EVENT) if guarded else (deal.got == WHOLE)
        assert deal.signed is None
        receipt = deal.receipt(None)
        assert (receipt.status, receipt.total) == (Status.UNDELIVERED, 0)
        assert receipt.segments[0].result == Reason.NO_COMPLETION


@both_ways
async def test_a_gateway_that_acknowledges_too_little(
    tmp_path: Path, monkeypatch: Patch, *, guarded: bool
) -> None:
    """It takes a window after the last preimage and says nothing has come: that window is lost."""
    if not guarded:
        without_window(monkeypatch)
    async with dealing(tmp_path, ack_timeout_s=SOON) as deal:
        await deal.take()
        deal.talk.ack(1)
        await deal.take_tokens(WINDOW)
        deal.talk.ack(2)
        await deal.take_rest()
        done = deal.signed
        assert done
        part = deal.part(done, output_tokens=0, acks=1, result=int(Reason.STREAM_BROKEN))
        receipt = deal.receipt(done, deal.delivery(part, done, outcome=int(Outcome.FAILED)))
        (segment,) = receipt.segments
        assert (segment.acks, segment.output_billed, segment.output_gateway) == (2, WINDOW, 0)
        assert segment.prompt_billed == deal.award.prompt_tokens
        assert segment.amount == amount(segment) == receipt.total > 0
        lost = segment.output_node - segment.output_billed
        assert (lost <= WINDOW + EVENT) if guarded else (lost == WHOLE - WINDOW)


@both_ways
async def test_a_gateway_that_never_reports(
    tmp_path: Path, monkeypatch: Patch, *, guarded: bool
) -> None:
    """The node hands its completion in itself; it loses what was after the last preimage."""
    if not guarded:
        monkeypatch.setattr(Journal, "owed", _nothing_owed)
    async with dealing(tmp_path) as deal:
        await deal.take()
        deal.talk.ack(1)
        await deal.take_rest(acks=1)
        assert isinstance(deal.frames[-1], wire.End)
        if not guarded:
            assert deal.here.coordinator.completions.items == []
            assert deal.receipt(None).total == 0
            return
        receipt = deal.receipt(await deal.handed_in())
        (segment,) = receipt.segments
        assert (receipt.status, segment.result) == (Status.UNDELIVERED, Reason.NOT_REPORTED)
        assert segment.output_node - segment.output_billed < WINDOW
        assert segment.output_billed == WINDOW * (segment.acks - 1) > 0
        assert segment.amount == amount(segment) == receipt.total


async def _nothing_owed(_self: object, _log: bytes) -> list[object]:
    await trio.lowlevel.checkpoint()
    return []


@both_ways
@pytest.mark.parametrize(
    ("lie", "outcome"),
    [
        ({"output_tokens": 1}, Outcome.COMPLETE),
        ({"output_tokens": 0, "result": int(Reason.CLIENT_GONE)}, Outcome.CLIENT_GONE),
        ({"output_tokens": 0, "result": int(Reason.STREAM_BROKEN)}, Outcome.FAILED),
        ({"segment_commitment": b"\x13" * 32}, Outcome.COMPLETE),
    ],
    ids=["fewer tokens", "its client went away", "the node failed", "another text"],
)
async def test_a_gateway_that_reports_less_than_it_acknowledged(
    tmp_path: Path, monkeypatch: Patch, lie: dict[str, Any], outcome: Outcome, *, guarded: bool
) -> None:
    """Preimages prove what was accepted, whatever it says of a whole answer afterwards."""
    if not guarded:
        monkeypatch.setattr(metering, "tokens_acknowledged", lambda _acks, _most: 0)
    async with dealing(tmp_path) as deal:
        await deal.take()
        deal.talk.ack(1)
        await deal.take_rest(acks=1)
        done = deal.signed
        assert done
        part = deal.part(done, **lie)
        receipt = deal.receipt(done, deal.delivery(part, done, outcome=int(outcome)))
        (segment,) = receipt.segments
        assert segment.result == _said_of(lie, guarded=guarded)
        assert segment.output_gateway == part.output_tokens
        if guarded:
            assert segment.output_node - segment.output_billed < WINDOW
            assert segment.amount == amount(segment) == receipt.total
        else:
            assert segment.output_billed <= 1


def _said_of(lie: dict[str, Any], *, guarded: bool) -> int:
    if "segment_commitment" in lie:
        return Reason.COMMITMENT_MISMATCH
    return lie.get("result") or (Reason.BELOW_ACKNOWLEDGED if guarded else Reason.COUNTS_DIFFER)


def _of_another(deal: Deal, job_id: bytes | None = None, rank: int = 1) -> wire.Ack:
    """The second preimage of a chain with the same end, but for another job or attempt."""
    chain = deal.talk.job.acks
    foreign = AckChain(job_id or deal.award.job_id, rank, MOST, chain.preimage(chain.length))
    return wire.Ack(2, foreign.preimage(2))


FALSE: dict[str, Callable[[Deal], wire.Ack]] = {
    "an old one": lambda deal: wire.Ack(2, deal.talk.job.acks.preimage(1)),
    "an old one by its old number": lambda deal: wire.Ack(1, deal.talk.job.acks.preimage(1)),
    "another job's": lambda deal: _of_another(deal, job_id=b"\x77" * 16),
    "another attempt's": lambda deal: _of_another(deal, rank=2),
    "one made up": lambda _deal: wire.Ack(2, b"\x77" * 32),
}


@both_ways
@pytest.mark.parametrize("false", FALSE.values(), ids=FALSE.keys())
async def test_a_gateway_that_replays_a_preimage(
    tmp_path: Path, monkeypatch: Patch, false: Callable[[Deal], wire.Ack], *, guarded: bool
) -> None:
    """The work ends at once; what was proven before is claimed, at most a window is lost."""
    if not guarded:
        monkeypatch.setattr(AckCounter, "accept", _believes)
    async with dealing(tmp_path, endless=guarded) as deal:
        await deal.take()
        deal.talk.ack(1)
        await deal.take_tokens(WINDOW)
        for _ in range(len(TEXT)):
            deal.talk.send(false(deal))
            if not isinstance(await deal.take(), wire.Chunk):
                break
        done = deal.signed
        assert done
        if not guarded:
            assert (deal.got, done.acks > 1) == (WHOLE, True), "all of it for one preimage"
            return
        assert isinstance(deal.frames[-1], wire.NodeRefused)
        assert deal.frames[-1].reason == Reason.PROTOCOL_VIOLATION
        await deal.here.engine.gone.reach(1)
        receipt = deal.receipt(await deal.handed_in())
        (segment,) = receipt.segments
        assert (segment.acks, segment.output_billed) == (1, 0)
        assert segment.output_node <= WINDOW + EVENT
        assert segment.amount == amount(segment) > 0, "the prompt"


def _believes(self: AckCounter, acks: int, preimage: bytes) -> None:
    """Without the guard: any preimage accepts one more window."""
    self.acks, self._head = max(self.acks + 1, acks), preimage


async def test_a_gateway_that_vanishes_in_mid_stream(tmp_path: Path) -> None:
    """The engine is dropped, the log gets the completion; what was proven is paid."""
    async with dealing(tmp_path, endless=True) as deal:
        await deal.take()
        deal.talk.ack(1)
        await deal.take_tokens(WINDOW)
        deal.talk.ack(2)
        await deal.take()
        deal.talk.stream.reset("vanished")
        await deal.here.engine.gone.reach(1)
        done = await deal.handed_in()
        receipt = deal.receipt(done)
        (segment,) = receipt.segments
        assert done.finish == Finish.CANCELLED
        assert (receipt.status, segment.result) == (Status.UNDELIVERED, Reason.NOT_REPORTED)
        assert (segment.acks, segment.output_billed) == (2, WINDOW)
        assert segment.output_node - segment.output_billed <= WINDOW + EVENT
        assert segment.amount == amount(segment) == receipt.total


# Nodes that lie to a real gateway

SAID = "It is lit, and the keeper's lamp has seen 12 ships pass. " * 8
TOKENS = model().tokenizer.count_text(SAID)
TOOL = [{"type": "function", "function": {"name": "f"}}]


async def says(work: Work, text: str = SAID, *, finish: str | None = "stop") -> None:
    """The text in two frames, and all acknowledgements there are for it."""
    await work.say(text[:1])
    await work.say(text[1:], finish=finish)
    await work.wait_acks(1 + model().tokenizer.count_text(text) // WINDOW)


def signs(text: str = SAID, **lies: Any) -> Script:
    """A whole answer, and a completion with these lies in it."""

    async def play(work: Work) -> None:
        await says(work, text)
        await work.end(**lies)

    return play


async def _only_segment(net: Network) -> tuple[Receipt, Segment]:
    receipt = await net.receipt()
    (segment,) = receipt.segments
    assert segment.amount == amount(segment) == receipt.total
    return receipt, segment


@both_ways
async def test_a_node_that_pads_its_count(
    tmp_path: Path, monkeypatch: Patch, *, guarded: bool
) -> None:
    """The smaller count is billed where more was not accepted; both stand on the receipt."""
    if not guarded:
        monkeypatch.setattr(metering, "_gateway_count", lambda _attempt, _delivery: 1000)
    async with network(tmp_path, signs(output_tokens=TOKENS + 30)) as net:
        answer = await net.complete()
        assert answer.usage.completion_tokens == TOKENS
        receipt, segment = await _only_segment(net)
        assert (receipt.status, segment.result) == (Status.COMPLETED, Reason.COUNTS_DIFFER)
        assert (segment.output_node, segment.output_gateway) == (TOKENS + 30, TOKENS)
        assert segment.output_billed == (TOKENS if guarded else TOKENS + 30)


async def test_a_node_that_pads_its_prompt_count(tmp_path: Path) -> None:
    """The prompt is billed as the award has it, by the gateway's count."""
    async with network(tmp_path, signs(prompt_tokens=900)) as net:
        answer = await net.complete()
        _, segment = await _only_segment(net)
        assert segment.prompt_billed == answer.usage.prompt_tokens < 900


@both_ways
async def test_a_node_that_claims_more_acknowledgements_than_it_has(
    tmp_path: Path, monkeypatch: Patch, *, guarded: bool
) -> None:
    """No preimage, no claim: its completion is none, so it is paid nothing at all."""
    if not guarded:
        monkeypatch.setattr(relays, "require_completion", lambda signed, *_: signed.message)
    lies = {"acks": 6, "output_tokens": 160, "last_preimage": b"\x77" * 32}
    async with network(tmp_path, signs("It is lit.", **lies)) as net:
        if guarded:
            with pytest.raises(openai.InternalServerError):
                await net.complete(tools=TOOL)
        else:
            await net.complete(tools=TOOL)
        receipt, segment = await _only_segment(net)
        if guarded:
            assert (receipt.status, receipt.total) == (Status.FAILED, 0)
            assert segment.result == Reason.PROTOCOL_VIOLATION
        else:
            assert segment.output_billed == 160


@both_ways
async def test_a_node_that_sends_more_than_it_was_awarded(
    tmp_path: Path, monkeypatch: Patch, *, guarded: bool
) -> None:
    """Running ahead is at the node's own risk: cut off, and without a completion unpaid.

    Where a gateway let it go on, no more than the award is billed all the same.
    """
    if not guarded:
        monkeypatch.setattr(Relay, "_require_no_more_than_awarded", lambda _self: None)
        monkeypatch.setattr(Relay, "output_tokens", property(lambda self: self._counter.count))
    most = 32

    async def floods(work: Work) -> None:
        await work.say(SAID[:1])
        await work.say(SAID[1:], finish="stop")
        await work.end(acks=work.acks.acks, last_preimage=work.acks.last_preimage)

    assert most + WINDOW < TOKENS
    async with network(tmp_path, floods) as net:
        if guarded:
            with pytest.raises(openai.InternalServerError):
                await net.complete(max_tokens=most, tools=TOOL)
        else:
            await net.complete(max_tokens=most, tools=TOOL)
        _, segment = await _only_segment(net)
        assert segment.result == (Reason.PROTOCOL_VIOLATION if guarded else Reason.CLIPPED)
        assert segment.output_billed == (0 if guarded else most)


@both_ways
async def test_a_node_that_commits_to_another_text(
    tmp_path: Path, monkeypatch: Patch, *, guarded: bool
) -> None:
    """The client has what it got, the receipt says disputed, and only the accepted is paid."""
    if not guarded:
        monkeypatch.setattr(metering, "_disputed", lambda *_args, **_more: False)
    async with network(tmp_path, signs(segment_commitment=b"\x99" * 32)) as net:
        answer = await net.complete()
        assert answer.choices[0].message.content == SAID
        receipt, segment = await _only_segment(net)
        accepted = WINDOW * (TOKENS // WINDOW)
        assert segment.output_billed == (accepted if guarded else TOKENS)
        if guarded:
            assert (receipt.status, segment.result) == (
                Status.DISPUTED,
                Reason.COMMITMENT_MISMATCH,
            )


async def test_a_node_that_withholds_the_end(tmp_path: Path) -> None:
    """No end, no answer and no pay: the next node goes on, and the prompt is billed once, to it."""

    async def never_ends(work: Work) -> None:
        await says(work)
        await work.stream.wait_over()

    async with network(tmp_path, never_ends, speaks(" And", " on.")) as net:
        answer = await net.complete()
        assert answer.choices[0].message.content == SAID + " And on."
        receipt = await net.receipt()
        held, served = receipt.segments
        assert (held.result, held.amount, held.prompt_billed) == (Reason.TOO_SLOW, 0, 0)
        assert (held.acks, held.output_gateway) == (1 + TOKENS // WINDOW, TOKENS)
        assert (held.start_byte, held.end_byte) == (0, len(SAID))
        assert (served.start_byte, served.prompt_billed) == (len(SAID), answer.usage.prompt_tokens)
        assert served.output_billed == model().tokenizer.count_text(" And on.")
        assert receipt.total == served.amount == amount(served)


async def test_a_node_that_gives_its_end_to_the_log_alone(tmp_path: Path) -> None:
    """It is paid what the gateway had accepted, and the client has that text; nothing beyond."""

    async def goes_behind(work: Work) -> None:
        await says(work)
        net.coordinator.handed_in.append(work.completion())
        await work.stream.wait_over()

    async with network(tmp_path, goes_behind, speaks(" And", " on.")) as net:
        answer = await net.complete()
        assert answer.choices[0].message.content == SAID + " And on."
        receipt = await net.receipt()
        held, served = receipt.segments
        assert held.result == Reason.TOO_SLOW
        assert held.output_billed == WINDOW * (held.acks - 1) <= TOKENS
        assert (held.prompt_billed, served.prompt_billed) == (0, answer.usage.prompt_tokens)
        assert receipt.total == amount(held) + amount(served)


@both_ways
async def test_a_node_that_sends_a_role_for_the_prompts_price(
    tmp_path: Path, monkeypatch: Patch, *, guarded: bool
) -> None:
    """The prompt is accepted with the first content, not with a frame that says nothing."""
    if not guarded:
        monkeypatch.setattr(Relay, "_acknowledge", _accepts_anything)

    async def says_nothing(work: Work) -> None:
        work.send({"role": "assistant", "content": ""})
        with trio.move_on_after(0.5):
            await work.wait_acks(1)
        net.coordinator.handed_in.append(work.completion())
        work.stream.reset("as scripted")

    async with network(tmp_path, says_nothing) as net:
        with pytest.raises(openai.InternalServerError):
            await net.complete()
        _, segment = await _only_segment(net)
        assert (segment.acks, segment.prompt_billed) == ((0, 0) if guarded else (1, 24))


async def _accepts_anything(self: Relay) -> None:
    if not self.acks:
        await self._release(1)
