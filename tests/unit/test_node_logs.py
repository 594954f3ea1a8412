"""Following a log: only what chain and directory agree about is taken over."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import httpx
import msgspec
import pytest
import trio
import trio.testing

from node.directory import HttpDirectory
from node.errors import DirectoryUnavailable, DirectoryWrong, JobRefused
from node.links import gateway_at
from node.logs import LogWatch
from node.ports import Publication, Published
from pinaivu.keys import SecretKey
from pinaivu.manifest import local_development_parameters
from pinaivu.p2p.errors import NotConnected
from tests.unit import node_support as n

SECOND, SECOND_PEER = n.STRANGER, n.NODE_PEER


class Stand:
    """A log watch between a chain and a directory that can be changed."""

    def __init__(self, url: str | None = "http://log.test") -> None:
        self.chain = n.chain()
        self.directory = n.DictDirectory(n.published())
        self.log = LogWatch(
            n.LOG,
            url,
            domain=n.DOMAIN,
            chain=self.chain,
            directory=self.directory,
            poll_s=0.01,
        )

    def restart(self) -> None:
        """The coordinator boots with new keys and its second epoch is activated."""
        self.activate()
        manifest = n.manifest(SECOND, SECOND_PEER)
        self.directory.published = n.published(2, manifest, "/ip4/127.0.0.1/tcp/4002")

    def activate(self) -> None:
        """Only the chain knows of the second epoch."""
        manifest = n.manifest(SECOND, SECOND_PEER)
        self.chain.epochs[2] = n.epoch_record(2, manifest, SECOND)
        self.chain.active = 2


async def test_an_epoch_that_fits_is_taken_over() -> None:
    """Key from the chain, parameters and address from the directory."""
    stand = Stand()
    await stand.log.refresh()
    epoch = stand.log.current
    assert epoch is not None
    assert (epoch.number, epoch.signer) == (1, n.COORDINATOR.address)
    assert epoch.addresses == n.published().addresses
    assert stand.log.require(1) is epoch


def _wrong_parameters(found: Publication) -> Publication:
    rules = local_development_parameters("http://127.0.0.1:1")
    return Publication(found.number, found.manifest, rules)


def _wrong_manifest(**changes: Any) -> Callable[[Publication], Publication]:
    def change(found: Publication) -> Publication:
        manifest = msgspec.structs.replace(found.manifest, **changes)
        return Publication(found.number, manifest, found.parameters)

    return change


WRONG = {
    "another epoch": lambda found: Publication(7, found.manifest, found.parameters),
    "another manifest": _wrong_manifest(code_version="other"),
    "another key": _wrong_manifest(signing_key=n.STRANGER.compressed),
    "other parameters": _wrong_parameters,
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG.keys())
async def test_what_the_chain_does_not_confirm_is_not_believed(
    change: Callable[[Publication], Publication],
) -> None:
    """Whoever runs the directory's host can't name keys or rules of its own."""
    stand = Stand()
    published = stand.directory.published
    stand.directory.published = Published((change(published.epochs[0]),), published.addresses)
    with pytest.raises(DirectoryWrong):
        await stand.log.refresh()
    assert stand.log.current is None


@pytest.mark.parametrize("field", ["chain_id", "settlement", "log_id"])
async def test_a_manifest_of_elsewhere_is_refused(field: str) -> None:
    """Even if an epoch was activated with it."""
    stand = Stand()
    other = {"chain_id": 5, "settlement": b"\x01" * 20, "log_id": b"\x01" * 32}
    manifest = msgspec.structs.replace(n.manifest(), **{field: other[field]})
    stand.chain.epochs[1] = n.epoch_record(1, manifest)
    stand.directory.published = n.published(1, manifest)
    with pytest.raises(DirectoryWrong, match="another log or deployment"):
        await stand.log.refresh()


async def test_a_key_other_than_the_activated_one_is_refused() -> None:
    """The chain holds key and manifest apart; they must fit."""
    stand = Stand()
    stand.chain.epochs[1] = n.epoch_record(1, n.manifest(), n.STRANGER)
    with pytest.raises(DirectoryWrong, match="signing key"):
        await stand.log.refresh()


async def test_parameters_that_were_never_allowed_are_refused() -> None:
    """Even if manifest and directory agree about them."""
    stand = Stand()
    stand.chain.parameters_digest = bytes(32)
    with pytest.raises(DirectoryWrong, match="allowed"):
        await stand.log.refresh()


async def test_an_address_of_another_peer_is_not_dialed() -> None:
    """The coordinator is reached under the peer key of its manifest only."""
    stand = Stand()
    addresses = (f"/ip4/127.0.0.1/tcp/1/p2p/{n.peer_of(n.STRANGER)}",)
    stand.directory.published = Published(stand.directory.published.epochs, addresses)
    with pytest.raises(DirectoryWrong, match="no address"):
        await stand.log.refresh()


async def test_a_restarted_coordinator_is_followed() -> None:
    """New keys, new peer, new address, without a restart of the node."""
    stand = Stand()
    await stand.log.refresh()
    stand.restart()
    await stand.log.refresh()
    epoch = stand.log.current
    assert epoch is not None
    assert (epoch.number, epoch.signer) == (2, SECOND.address)
    assert epoch.addresses == (f"/ip4/127.0.0.1/tcp/4002/p2p/{n.peer_of(SECOND_PEER)}",)
    with pytest.raises(JobRefused):
        stand.log.require(1)


async def test_the_ended_epochs_key_counts_no_more_even_without_a_directory() -> None:
    """From the moment the chain says so; what replaces it is learnt later."""
    stand = Stand()
    await stand.log.refresh()
    stand.activate()
    stand.directory.error = DirectoryUnavailable("away")
    with pytest.raises(DirectoryUnavailable):
        await stand.log.refresh()
    assert stand.log.current is None


async def test_a_log_without_an_epoch_is_left_alone() -> None:
    """Revoked or expired: nothing it signs is accepted."""
    stand = Stand()
    await stand.log.refresh()
    stand.chain.active = 0
    await stand.log.refresh()
    assert stand.log.current is None


async def test_the_directory_is_asked_again_only_on_doubt() -> None:
    """While the epoch stays the same, a poll is one read of the chain."""
    stand = Stand()
    for _ in range(3):
        await stand.log.refresh()
    assert stand.directory.reads == 1
    stand.log.doubt()
    await stand.log.refresh()
    assert stand.directory.reads == 2


async def test_signers_of_all_epochs_come_from_the_chain() -> None:
    """A receipt of an earlier epoch is checked with that epoch's key."""
    stand = Stand()
    stand.restart()
    assert await stand.log.signer(1) == n.COORDINATOR.address
    assert await stand.log.signer(2) == SECOND.address
    with pytest.raises(DirectoryWrong):
        await stand.log.signer(3)


async def test_whoever_waits_gets_the_next_epoch(nursery: trio.Nursery) -> None:
    """Polling goes on through errors; a change arrives with one of the next polls."""
    stand = Stand()
    stand.directory.error = DirectoryUnavailable("away")
    nursery.start_soon(stand.log.run)
    with trio.fail_after(20):
        await stand.directory.read_times(3)
        stand.directory.error = None
        first = await stand.log.next_after(None)
        stand.restart()
        assert (await stand.log.next_after(first)).number == 2
    nursery.cancel_scope.cancel()


def _at(*bare: str, of: SecretKey = n.COORDINATOR_PEER) -> tuple[str, ...]:
    return tuple(f"{address}/p2p/{n.peer_of(of)}" for address in bare)


async def test_without_a_url_the_log_is_found_where_the_chain_says() -> None:
    """The operator's addresses come first, each under the attested peer; then the coordinator's."""
    stand = Stand(url=None)
    stand.chain.endpoints = (
        "/ip4/8.8.8.8/tcp/22/p2p/16Uiu2HAmLhLvBoYaoZfaMUKuibM6ac163GwKY74c5kiSLg5KvLpY",
        "http://169.254.169.254",
        "https://log.example",
        "/dns/log.example/tcp/4001",
    )
    stand.directory.published = n.published(address="/ip4/8.8.8.8/tcp/4001")
    await stand.log.refresh()
    assert stand.directory.asked == ["https://log.example"]
    assert stand.log.current is not None
    assert stand.log.current.addresses == _at("/dns/log.example/tcp/4001", "/ip4/8.8.8.8/tcp/4001")


async def test_a_log_that_moves_is_followed_when_it_is_lost() -> None:
    """The same epoch elsewhere; while the coordinator is held, nobody looks."""
    stand = Stand(url=None)
    stand.chain.endpoints = ("https://log.example", "/ip4/8.8.8.8/tcp/4001")
    await stand.log.refresh()
    stand.chain.endpoints = ("https://log.example", "/ip4/8.8.4.4/tcp/4001")
    await stand.log.refresh()
    assert stand.log.current is not None
    assert stand.log.current.addresses == _at("/ip4/8.8.8.8/tcp/4001")
    stand.log.doubt()
    await stand.log.refresh()
    assert stand.log.current.addresses == _at("/ip4/8.8.4.4/tcp/4001")


async def test_a_url_that_is_configured_takes_precedence() -> None:
    """Then the chain's words are not even read, and private addresses are the owner's choice."""
    stand = Stand()
    stand.chain.endpoints = ("https://elsewhere.example", "/ip4/8.8.8.8/tcp/4001")
    await stand.log.refresh()
    assert stand.directory.asked == ["http://log.test"]
    assert stand.log.current is not None
    assert stand.log.current.addresses == _at("/ip4/127.0.0.1/tcp/4001")


async def test_the_coordinators_own_words_are_as_bounded_as_the_chains() -> None:
    """Found through the chain, it can't point the node at private doors either."""
    stand = Stand(url=None)
    stand.chain.endpoints = ("https://log.example",)
    with pytest.raises(DirectoryWrong, match="no address"):
        await stand.log.refresh()


@pytest.mark.parametrize("said", [(), ("http://10.0.0.1",), ("/ip4/8.8.8.8/tcp/1",)])
async def test_a_log_that_publishes_nothing_usable_says_what_to_do(said: tuple[str, ...]) -> None:
    """What was known stands."""
    stand = Stand(url=None)
    stand.chain.endpoints = said
    with pytest.raises(DirectoryUnavailable, match="operator"):
        await stand.log.refresh()
    assert stand.directory.asked == []


async def test_a_url_that_lies_does_not_hide_the_next() -> None:
    """Only what the chain confirms is taken, from wherever it comes."""
    stand = Stand(url=None)
    stand.chain.endpoints = ("https://liar.example", "https://log.example", "/ip4/8.8.8.8/tcp/1")
    right = stand.directory.published
    stand.directory.by_url["https://liar.example"] = Published(
        (_wrong_parameters(right.epochs[0]),), right.addresses
    )
    await stand.log.refresh()
    assert stand.directory.asked == ["https://liar.example", "https://log.example"]
    assert stand.log.current is not None


async def test_a_directory_that_dribbles_is_given_up(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    """Each byte comes in time, the whole never."""

    class Dribble(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                await trio.sleep(5)
                yield b" "

    with pytest.raises(DirectoryUnavailable):
        await _http(lambda _: httpx.Response(200, stream=Dribble())).read("http://log.test")


async def test_a_registered_gateway_is_found_by_its_address() -> None:
    """Under the peer key of the registry, each time anew; a multiaddr is taken as it is."""
    chain = n.chain()
    by_id = gateway_at("0x" + n.GATEWAY.address.hex(), chain, private=False)
    with pytest.raises(NotConnected, match="no address"):
        await by_id()
    record = chain.gateways[n.GATEWAY.address]
    for port in ("1", "2"):
        said = ("http://10.0.0.1", "/ip4/127.0.0.1/tcp/22", f"/ip4/8.8.8.8/tcp/{port}")
        chain.gateways[n.GATEWAY.address] = replace(record, endpoints=said)
        assert await by_id() == _at(f"/ip4/8.8.8.8/tcp/{port}", of=n.GATEWAY_PEER)
    del chain.gateways[n.GATEWAY.address]
    with pytest.raises(NotConnected, match="not registered"):
        await by_id()
    named = gateway_at("/ip4/127.0.0.1/tcp/1/p2p/x", chain, private=False)
    assert await named() == ("/ip4/127.0.0.1/tcp/1/p2p/x",)


def _http(handler: Callable[[httpx.Request], httpx.Response]) -> HttpDirectory:
    return HttpDirectory(httpx.AsyncClient(transport=httpx.MockTransport(handler)))


def _document() -> dict[str, Any]:
    entry = {
        "number": 1,
        "manifest": n.manifest().to_json(),
        "parameters": n.parameters().to_json(),
        "document": "",
    }
    return {"epochs": [entry], "active": 1, "addresses": ["/ip4/127.0.0.1/tcp/1"], "pending": 0}


async def test_a_directory_is_read_over_http() -> None:
    """Members that a node has no use for are passed over."""
    asked = list[str]()

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, json=_document())

    found = await _http(answer).read("http://log.test/sub/")
    assert asked == ["http://log.test/sub/attestation"]
    assert found.addresses == ("/ip4/127.0.0.1/tcp/1",)
    assert found.epochs == (Publication(1, n.manifest(), n.parameters()),)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json={"epochs": []}),
        httpx.Response(200, json=_document() | {"epochs": [{"number": 1}]}),
        httpx.Response(200, content=bytes(5 << 20)),
    ],
    ids=["no JSON", "no addresses", "no manifest", "endless"],
)
async def test_what_is_no_directory_is_refused(answer: httpx.Response) -> None:
    """Whoever answers there is not a coordinator of this version."""
    with pytest.raises(DirectoryWrong):
        await _http(lambda _: answer).read("http://log.test")


async def test_no_answer_is_an_error_of_transport() -> None:
    """Try again later."""

    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    for handler in (fail, lambda _: httpx.Response(502)):
        with pytest.raises(DirectoryUnavailable):
            await _http(handler).read("http://log.test")
