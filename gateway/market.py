"""The conversation with one coordinator: one control stream, kept up, and calls on it.

`Market.run` dials, says hello, and does so again whenever the stream ends; where to dial is asked
anew each time, since a coordinator has a new peer key after every boot. Calls wait a little for a
connection and repeat what was not answered: the coordinator gives the same answer to the same
bytes. Signatures are checked by the callers. The coordinator calls with signed batches, which go to
a `BatchKeeper`.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from gateway.errors import CoordinatorFault, CoordinatorUnreachable, MarketRefused
from pinaivu.errors import PinaivuError, TransportFailure
from pinaivu.messages import Failure, Grant, Job
from pinaivu.p2p import wire
from pinaivu.p2p.calls import Calls
from pinaivu.p2p.errors import CallRefused
from pinaivu.p2p.frames import FrameLimits, FrameStream
from pinaivu.p2p.host import Host
from pinaivu.p2p.links import Backoff
from pinaivu.store.batches import BatchKeeper
from pinaivu.typed_data import Signed

_HELLO_S: Final = 10.0
_DELIVER_S: Final = 30.0
_AGAIN_S: Final = 0.1
_REDIAL_S: Final = 3.0
_MS: Final = 1000
_log = logging.getLogger(__name__)

Address = Callable[[], Awaitable[str]]
"""Multiaddr with peer id of the coordinator's active epoch; `TransportFailure` if unknown now."""


class Market:
    """The coordinator, as a gateway sees it."""

    def __init__(
        self,
        host: Host,
        address: Address,
        hello: wire.Hello,
        batches: BatchKeeper,
        *,
        within_s: float,
        random: Callable[[], float],
    ) -> None:
        """`within_s`: how long submitting a job may take, a reconnection included."""
        self._host = host
        self._address = address
        self._hello = hello
        self._batches = batches
        self._within_s = within_s
        self._random = random
        self._calls: Calls | None = None
        self._arrival = trio.Event()

    @property
    def connected(self) -> bool:
        """Whether the coordinator has greeted us and the stream is up."""
        return self._calls is not None

    async def wait_connected(self) -> None:
        """Wait for the next moment the coordinator can be called."""
        while self._calls is None:
            await self._arrival.wait()

    async def run(self) -> None:
        """Keep the control stream up, for ever.

        Attempts are never so far apart that a request gives up between two of them: a coordinator
        that is back serves who has been waiting for it.
        """
        backoff, failures = Backoff(most=min(_REDIAL_S, self._within_s / 2)), 0
        while True:
            started = trio.current_time()
            try:
                await self._session()
            except PinaivuError as error:
                _log.warning("no link to the coordinator: %s", error)
            lasted = trio.current_time() - started
            failures = 1 if lasted >= backoff.healthy_after else failures + 1
            await trio.sleep(backoff.delay(failures, self._random))

    async def submit(
        self, job: Signed[Job], grant: Signed[Grant], *, patient: bool = True
    ) -> wire.Awarded | wire.Receipted:
        """Have a job awarded; `Receipted` if it is over already.

        Raises `MarketRefused`, or `CoordinatorUnreachable` when no answer came in time: the job
        may have been accepted nevertheless. Who is not `patient` waits for no new connection.
        """
        frame = wire.SubmitJob(job.to_bytes(), grant.to_bytes())
        answer = await self._answered(frame, self._within_s, patient=patient)
        if isinstance(answer, wire.Awarded | wire.Receipted):
            return answer
        raise CoordinatorFault(f"a job was answered by {type(answer).__name__}")

    async def report(self, failure: Signed[Failure], *, patient: bool = True) -> wire.Awarded:
        """Report a failed award and get the next one; waits and raises as `submit`."""
        frame = wire.ReportFailure(failure.to_bytes())
        answer = await self._answered(frame, self._within_s, patient=patient)
        if isinstance(answer, wire.Awarded):
            return answer
        raise CoordinatorFault(f"a failure was answered by {type(answer).__name__}")

    async def deliver(self, frame: bytes) -> wire.Receipted:
        """Hand over a delivery (an encoded `wire.Deliver`); raises as `submit`."""
        answer = await self._call(frame, _DELIVER_S)
        if isinstance(answer, wire.Receipted):
            return answer
        raise CoordinatorFault(f"a delivery was answered by {type(answer).__name__}")

    async def _answered(
        self, frame: wire.GatewayToCoordinator, within_s: float, *, patient: bool = True
    ) -> wire.GatewayAnswer:
        """Ask until there is an answer, other than to come back soon."""
        payload = wire.encode(frame)
        with trio.move_on_after(within_s):
            while patient or self.connected:
                await self.wait_connected()
                try:
                    return await self._call(payload, within_s)
                except MarketRefused as refused:
                    if refused.reason or not 0 < refused.retry_after_ms < within_s * _MS:
                        raise
                    _log.info("asking the coordinator again: %s", refused)
                except TransportFailure as error:
                    _log.info("asking the coordinator again: %s", error)
                await trio.sleep(_AGAIN_S)
        raise CoordinatorUnreachable(f"no answer from the coordinator within {within_s:g} s")

    async def _call(self, payload: bytes, within_s: float) -> wire.GatewayAnswer:
        calls = self._calls
        if calls is None:
            raise CoordinatorUnreachable("there is no connection to the coordinator")
        try:
            answer = wire.read_gateway_answer(await calls.call(payload, timeout=within_s))
        except CallRefused as error:
            raise MarketRefused(wire.Refused("refused", str(error))) from error
        if isinstance(answer, wire.Refused):
            raise MarketRefused(answer)
        return answer

    async def _session(self) -> None:
        peer = await self._host.connect(await self._address())
        limits = FrameLimits.of(wire.MAX_CONTROL_FRAME)
        stream = await self._host.open_stream(peer, wire.GATEWAY_PROTOCOL, limits)
        try:
            await self._converse(stream)
        finally:
            stream.reset("the session is over")

    async def _converse(self, stream: FrameStream) -> None:
        calls = Calls(stream, on_call=self._keep_batch)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._greet, calls)
            try:
                await calls.run()
            except PinaivuError as error:
                _log.info("the coordinator's stream is over: %s", error)
            finally:
                self._calls = None
                nursery.cancel_scope.cancel()

    async def _keep_batch(self, payload: bytes) -> bytes:
        frame = wire.read_coordinator_to_gateway(payload)
        await self._batches.keep(frame.batch, frame.consistency)
        return wire.encode(wire.Done())

    async def _greet(self, calls: Calls) -> None:
        try:
            payload = await calls.call(wire.encode(self._hello), timeout=_HELLO_S)
            answer = wire.read_gateway_answer(payload)
        except PinaivuError as error:
            answer = wire.Refused("no_answer", str(error))
        if isinstance(answer, wire.Refused):
            _log.error("the coordinator does not greet us: %s (%s)", answer.detail, answer.code)
            calls.stream.reset("not greeted")
            return
        self._calls = calls
        self._arrival.set()
        self._arrival = trio.Event()
        _log.info("connected to the coordinator %s", calls.stream.peer)
