"""`Calls` over in-memory pipes."""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest
import trio
import trio.testing

from pinaivu.errors import TransportFailure
from pinaivu.p2p.calls import CallHandler, Calls, NoticeHandler
from pinaivu.p2p.errors import (
    BadEnvelope,
    CallBusy,
    CallRefused,
    CallTimeout,
    StreamBroken,
)
from pinaivu.p2p.frames import FrameStream
from tests.unit.p2p_pipes import connected, running


@asynccontextmanager
async def conversation(
    on_call: CallHandler | None = None,
    on_notice: NoticeHandler | None = None,
    *,
    workers: int = 4,
    backlog: int = 4,
) -> AsyncGenerator[tuple[Calls, FrameStream]]:
    """A caller, and the stream of the other end, which answers with the given handlers."""

    async def run(calls: Calls) -> None:
        with suppress(StreamBroken, BadEnvelope):
            await calls.run()

    async with connected() as (here, there), trio.open_nursery() as nursery:
        caller = Calls(here)
        answerer = Calls(
            there, on_call=on_call, on_notice=on_notice, workers=workers, backlog=backlog
        )
        nursery.start_soon(run, caller)
        nursery.start_soon(run, answerer)
        yield caller, there
        here.reset()
        there.reset()


async def upper(payload: bytes) -> bytes:
    await trio.lowlevel.checkpoint()
    return payload.upper()


async def test_reply_belongs_to_its_call_in_whatever_order_they_come() -> None:
    waiting: dict[bytes, trio.Event] = {name: trio.Event() for name in (b"a", b"b", b"c")}
    answers: dict[bytes, bytes] = {}

    async def answer(payload: bytes) -> bytes:
        await waiting[payload].wait()
        return payload.upper()

    async with conversation(answer) as (caller, _), trio.open_nursery() as nursery:

        async def call(payload: bytes) -> None:
            answers[payload] = await caller.call(payload, timeout=5)

        for name in waiting:
            nursery.start_soon(call, name)
        for name in (b"c", b"a", b"b"):
            waiting[name].set()
            await trio.testing.wait_all_tasks_blocked()
            assert answers[name] == name.upper()


async def test_notices_arrive_in_order_and_a_failing_one_stops_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen = []

    def note(payload: bytes) -> None:
        seen.append(payload)
        if payload == b"1":
            raise ZeroDivisionError

    async with conversation(upper, note) as (caller, _):
        with caplog.at_level(logging.ERROR):
            for number in range(5):
                caller.notify(b"%d" % number)
            assert await caller.call(b"after", timeout=5) == b"AFTER"
    assert seen == [b"0", b"1", b"2", b"3", b"4"]
    assert "ZeroDivisionError" in caplog.text


async def test_call_without_reply_ends_with_its_timeout(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    async def never(_payload: bytes) -> bytes:
        await trio.sleep(60)
        return b""

    async with conversation(never) as (caller, _):
        with pytest.raises(CallTimeout):
            await caller.call(b"x", timeout=1.5)
        assert trio.current_time() == pytest.approx(1.5)


async def test_late_reply_is_nobodys(autojump_clock: trio.testing.MockClock) -> None:  # noqa: ARG001
    async def slow(payload: bytes) -> bytes:
        await trio.sleep(2 if payload == b"slow" else 1)
        return payload

    async with conversation(slow) as (caller, _):
        with pytest.raises(CallTimeout):
            await caller.call(b"slow", timeout=1.5)
        assert await caller.call(b"quick", timeout=1.5) == b"quick"


async def test_error_of_ours_reaches_the_caller_and_a_bug_does_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(payload: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        if payload == b"ours":
            raise TransportFailure("the disk is full")
        raise KeyError("secret detail")

    async with conversation(fail) as (caller, _):
        with pytest.raises(CallRefused, match="TransportFailure: the disk is full"):
            await caller.call(b"ours", timeout=5)
        with pytest.raises(CallRefused, match=r"^internal error$"):
            await caller.call(b"bug", timeout=5)
    assert "secret detail" in caplog.text


async def test_no_more_than_the_workers_at_a_time_and_busy_beyond_the_backlog() -> None:
    release = trio.Event()
    running_now = 0

    async def answer(payload: bytes) -> bytes:
        nonlocal running_now
        running_now += 1
        await release.wait()
        return payload

    results: list[str] = []

    async with conversation(answer, workers=2, backlog=3) as (caller, _):

        async def call(number: int) -> None:
            try:
                await caller.call(b"%d" % number, timeout=5)
                results.append("ok")
            except CallBusy:
                results.append("busy")

        async with trio.open_nursery() as nursery:
            for number in range(7):
                nursery.start_soon(call, number)
                await trio.testing.wait_all_tasks_blocked()
            assert running_now == 2
            assert results == ["busy", "busy"]
            release.set()
    assert results[2:] == ["ok"] * 5


async def test_calls_that_arrive_together_do_not_wait_for_each_other() -> None:
    """One worker is idle already: the others get workers of their own all the same."""
    gate, running_now = trio.Event(), 0

    async def answer(payload: bytes) -> bytes:
        nonlocal running_now
        running_now += 1
        if payload != b"first":
            await gate.wait()
        running_now -= 1
        return payload

    async with conversation(answer) as (caller, _), trio.open_nursery() as nursery:
        await caller.call(b"first", timeout=5)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            nursery.start_soon(caller.call, b"more", 5)
        await trio.testing.wait_all_tasks_blocked()
        assert running_now == 3
        gate.set()


async def test_pending_calls_fail_as_soon_as_the_stream_breaks() -> None:
    async def never(_payload: bytes) -> bytes:
        await trio.sleep(0.05)  # handlers under way are waited for, so this one ends soon
        return b""

    async with conversation(never) as (caller, there), trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(StreamBroken):
                await caller.call(b"x", timeout=3600)

        nursery.start_soon(call)
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        there.reset("gone")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(StreamBroken):
            await caller.call(b"x", timeout=3600)


async def test_handler_under_way_is_not_torn_when_the_stream_breaks(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    """It may be between two writes that belong together; what waits unstarted is dropped."""
    done = []

    async def store(payload: bytes) -> bytes:
        await trio.sleep(1)
        done.append(payload)
        return b""

    async with conversation(store, workers=1) as (caller, there), trio.open_nursery() as nursery:

        async def call(payload: bytes) -> None:
            with pytest.raises(StreamBroken):
                await caller.call(payload, timeout=10)

        for payload in (b"first", b"second"):
            nursery.start_soon(call, payload)
            await trio.testing.wait_all_tasks_blocked()
        there.reset("gone")
    assert done == [b"first"]


def envelope(kind: int, version: int) -> bytes:
    return msgspec.msgpack.encode([kind, version, 7, b"payload"])


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (envelope(1, 2), "version 2"),
        (envelope(9, 1), "not an envelope"),
        (b"\xc1", "not an envelope"),
        (msgspec.msgpack.encode({"kind": 1}), "not an envelope"),
        (envelope(4, 1), "no notices"),
    ],
    ids=["later version", "unknown kind", "not msgpack", "another type", "not asked for"],
)
async def test_frames_that_are_no_envelopes_end_the_conversation(frame: bytes, why: str) -> None:
    async with running() as rig:
        rig.pipe.feed(len(frame).to_bytes(4, "big") + frame)
        with pytest.raises(BadEnvelope, match=why):
            await Calls(rig.stream, on_call=upper).run()
        await trio.testing.wait_all_tasks_blocked()
        assert rig.pipe.was_reset


async def test_run_returns_when_the_peer_ends_the_stream() -> None:
    async with running() as rig:
        rig.pipe.feed(bytes(4))
        await Calls(rig.stream).run()


async def test_run_raises_when_the_stream_breaks() -> None:
    async with running() as rig:
        rig.pipe.feed_eof()
        with pytest.raises(StreamBroken):
            await Calls(rig.stream).run()
