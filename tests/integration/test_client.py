"""The verifying client inside the official SDK: truth gets through, every lie is withheld.

Both SDKs, synchronous and asynchronous, are told the same lies, and so are clients that are lazy:
those hand an answer over first, and then say what is wrong with it.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import openai
import pytest
import trio
from msgspec.structs import replace

from pinaivu import client
from pinaivu.bundles import pack
from pinaivu.client.clients import AsyncVerifyingClient, VerifyingClient
from pinaivu.client.errors import UNVERIFIED
from pinaivu.errors import Misconfigured, TransportFailure
from pinaivu.testing.bundles import BundleFactory, Made
from pinaivu.testing.lies import TRUTH, Lies
from pinaivu.testing.scenarios import SCENARIOS, Scenario
from pinaivu.verify.facts import ChainFacts
from tests.integration.lying_gateway import Json, LyingGateway, serving
from tests.unit.test_verify_books import crowd
from tests.unit.verify_support import network

pytestmark = pytest.mark.filterwarnings(
    "ignore::pinaivu.attestation.simulated.SimulatedDocumentWarning"
)

LIVE = SCENARIOS["live"]
API_KEY = "sk-pnv-mine"
ONCE = b'"content": "'


def of(factory: BundleFactory, made: Made) -> Made:
    """The same with the holder's part inside, as a gateway serves it."""
    return factory.bundle(made.served, with_holder=True)


class Kind(NamedTuple):
    """Which SDK the client is for, and whether it verifies beside."""

    asynchronous: bool = False
    lazy: bool = False


EAGER = {"sync": Kind(), "async": Kind(asynchronous=True)}
LAZY = {"sync, lazy": Kind(lazy=True), "async, lazy": Kind(asynchronous=True, lazy=True)}
ALL = EAGER | LAZY
Client = VerifyingClient | AsyncVerifyingClient


class Place(NamedTuple):
    """A network, the gateway in front of it, and the kind of client that asks there."""

    factory: BundleFactory
    gateway: LyingGateway
    closing: ExitStack
    kind: Kind = Kind()

    def trust(self, **changes: Any) -> client.Trust:
        """A chain to ask; its attestation is SIMULATED."""
        policy = client.answers(self.factory.domain, simulated=True)
        terms = client.Trust(policy=policy, chain=lambda: self.factory.chain)
        return replace(terms, **changes)

    def client(self, trust: client.Trust | None = None, **options: Any) -> Client:
        """A verifying client of our kind, whose clock is the factory's."""
        own: dict[str, Any] = {"now_ms": self.factory.clock, "within_s": 5, "lazy": self.kind.lazy}
        options = own | options
        trust = trust or self.trust()
        if not self.kind.asynchronous:
            return self.closing.enter_context(client.verifying(trust, **options))
        # Each request is a trio run of its own here, whose end no connection outlives.
        unkept = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_keepalive_connections=0))
        made = client.verifying_async(trust, inner=unkept, **options)
        self.closing.callback(trio.run, made.aclose)
        return made

    def sdk(self, http: Any) -> Any:
        """The SDK around it, with its retries as they are."""
        made = openai.AsyncOpenAI if self.kind.asynchronous else openai.OpenAI
        return made(base_url=self.gateway.url, api_key=API_KEY, http_client=http)

    def ask(self, http: Client, *, stream: bool = False) -> str:
        """The text of an answer that was verified; the SDK's error, or what a lazy client says."""
        given = self.given(http, stream=stream)
        http.require_verified(10)
        return given

    def given(self, http: Client, *, stream: bool = False) -> str:
        """The text as it was handed over, or the SDK's error."""
        if self.kind.asynchronous:
            return trio.run(self._awaited, http, stream)
        answer = self.sdk(http).chat.completions.create(**self.arguments(), stream=stream)
        if not stream:
            return str(answer.choices[0].message.content)
        return "".join(chunk.choices[0].delta.content or "" for chunk in answer)

    async def _awaited(self, http: Client, stream: bool) -> str:  # noqa: FBT001 - trio.run's
        answer = await self.sdk(http).chat.completions.create(**self.arguments(), stream=stream)
        if not stream:
            return str(answer.choices[0].message.content)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in answer])

    def arguments(self) -> dict[str, Any]:
        """The request as the SDK takes it."""
        body = self.gateway.body
        return body | {"extra_body": {"pinaivu": body.pop("pinaivu")}}


@pytest.fixture(params=ALL.values(), ids=list(ALL))
def kind(request: pytest.FixtureRequest) -> Kind:
    """Every kind of client."""
    found: Kind = request.param
    return found


@pytest.fixture
def place(kind: Kind) -> Iterator[Place]:
    yield from _place(LIVE, kind=kind)


@pytest.fixture(params=EAGER.values(), ids=list(EAGER))
def eager(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A place whose client verifies first."""
    yield from _place(LIVE, kind=request.param)


@pytest.fixture(params=LAZY.values(), ids=list(LAZY))
def lazy(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A place whose client verifies beside."""
    yield from _place(LIVE, kind=request.param)


@pytest.fixture
def plain() -> Iterator[Place]:
    """A place for what is done with a synchronous client by hand."""
    yield from _place(LIVE)


def _place(scenario: Scenario, lies: Lies = TRUTH, kind: Kind = EAGER["sync"]) -> Iterator[Place]:
    factory = network()
    made = of(factory, factory.make(scenario, lies))
    with serving(LyingGateway(made)) as gateway, ExitStack() as closing:
        yield Place(factory, gateway, closing, kind)


def text(place: Place) -> str:
    return str(place.gateway.answer()["choices"][0]["message"]["content"])


@pytest.mark.parametrize("stream", [False, True])
def test_a_true_answer_is_handed_over(place: Place, stream: bool) -> None:  # noqa: FBT001
    """The application gets exactly what was verified, and the bundle was fetched with its key."""
    place.gateway.not_yet = 2
    assert place.ask(place.client(), stream=stream) == text(place)
    assert len(place.gateway.asked) == 1
    assert place.gateway.fetched == [f"Bearer {API_KEY}"] * 3


@pytest.mark.parametrize("stream", [False, True])
def test_bundles_are_kept_for_reckoning_up(place: Place, tmp_path: Path, stream: bool) -> None:  # noqa: FBT001
    place.ask(place.client(keep=tmp_path / "kept"), stream=stream)
    (kept,) = (tmp_path / "kept").iterdir()
    assert kept.name == f"{place.gateway.request_id}.pnv"
    assert kept.read_bytes() == place.gateway.made.raw


def test_a_pinned_key_is_enough_without_a_chain(place: Place) -> None:
    signer = place.factory.epoch.key.address
    policy = client.answers(place.factory.domain, offline=True, simulated=True)
    pinned = client.Trust(policy=policy, signers=frozenset({signer}))
    assert place.ask(place.client(pinned)) == text(place)
    stranger = replace(pinned, signers=frozenset({b"\x01" * 20}))
    assert refused(place, place.client(stranger)) == "answer_refuted"


def test_a_pinned_measurement_is_required(place: Place) -> None:
    own = place.gateway.made.served.receipt.message.measurement
    assert place.ask(place.client(place.trust(measurements=frozenset({own})))) == text(place)
    other = place.trust(measurements=frozenset({b"\x01" * 32}))
    assert refused(place, place.client(other)) == "answer_refuted"


def refused(place: Place, http: Client, *, stream: bool = False) -> str:
    """The code of the refusal; the request was sent once only."""
    before = len(place.gateway.asked)
    with pytest.raises((openai.APIError, *UNVERIFIED)) as caught:
        place.ask(http, stream=stream)
    assert len(place.gateway.asked) == before + 1, "a refused answer was bought again"
    if isinstance(caught.value, UNVERIFIED):
        assert place.kind.lazy, "it was handed over"
        assert any(one.error for one in http.unverified())
        return caught.value.code
    if not stream:
        assert isinstance(caught.value, openai.APIStatusError)
        assert caught.value.status_code == 424
    assert isinstance(caught.value, openai.APIError)
    assert "withheld" in caught.value.message
    return str(caught.value.code)


def _other_text(answer: Json) -> Json:
    choice = answer["choices"][0]
    message = choice["message"] | {"content": choice["message"]["content"] + "not!"}
    return answer | {"choices": [choice | {"message": message}]}


def _other_finish(answer: Json) -> Json:
    return answer | {"choices": [answer["choices"][0] | {"finish_reason": "length"}]}


def _other_call(answer: Json) -> Json:
    call = {"id": "1", "type": "function", "function": {"name": "pay", "arguments": "{}"}}
    message = answer["choices"][0]["message"] | {"tool_calls": [call]}
    return answer | {"choices": [answer["choices"][0] | {"message": message}]}


def _no_id(answer: Json) -> Json:
    return {name: value for name, value in answer.items() if name != "request_id"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("lie", [_other_text, _other_finish])
def test_another_answer_than_the_receipts_is_withheld(
    place: Place,
    lie: Callable[[Json], Json],
    stream: bool,  # noqa: FBT001
) -> None:
    place.gateway.tell = lie
    assert refused(place, place.client(), stream=stream) == "answer_refuted"


def test_a_tool_call_nobody_made_is_withheld(place: Place) -> None:
    place.gateway.tell = _other_call
    assert refused(place, place.client()) == "answer_refuted"


@pytest.mark.parametrize("stream", [False, True])
def test_what_two_parsers_read_in_two_ways_is_written_anew(plain: Place, stream: bool) -> None:  # noqa: FBT001
    """A member given twice: the application's parser can't see another one than was verified."""
    plain.gateway.spell = lambda content: content.replace(ONCE, b'"content": "No! ", ' + ONCE)
    body = plain.gateway.body | {"stream": stream}
    http = plain.client()
    assert isinstance(http, VerifyingClient)
    answer = http.post(f"{plain.gateway.url}/chat/completions", json=body)
    assert answer.status_code == 200
    assert b"finish_reason" in answer.content
    assert b"No!" not in answer.content


LIED: dict[str, Lies] = {
    "a higher price": Lies(award=lambda a: replace(a, price_out=a.price_out + 1)),
    "a higher total": Lies(receipt=lambda r: replace(r, total=r.total + 1)),
    "another prompt": Lies(body=lambda b: b | {"temperature": 0.25}),
    "more tokens": Lies(job=lambda j: replace(j, max_output_tokens=j.max_output_tokens - 1)),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", LIED)
def test_a_lie_that_was_signed_is_withheld(kind: Kind, name: str, stream: bool) -> None:  # noqa: FBT001
    for place in _place(LIVE, LIED[name], kind):
        if name == "another prompt":
            place.gateway.made.served.request.body["temperature"] = 0.5  # what is really asked
        assert refused(place, place.client(), stream=stream) == "answer_refuted"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_without_a_receipt_is_withheld(place: Place, stream: bool) -> None:  # noqa: FBT001
    place.gateway.not_yet = 10**6
    assert refused(place, place.client(within_s=0.3), stream=stream) == "receipt_missing"
    place.gateway.not_yet, place.gateway.bundle_status = 0, 404
    assert refused(place, place.client(), stream=stream) == "receipt_missing"
    place.gateway.tell = _no_id
    assert refused(place, place.client(), stream=stream) == "receipt_missing"


def test_another_requests_bundle_is_withheld(place: Place) -> None:
    """Even where that one was for the same words: the id is another."""
    other = place.factory.serve(LIVE)
    place.gateway.bundle = place.factory.bundle(other, with_holder=True).raw
    assert refused(place, place.client()) == "answer_refuted"

    def under_its_id(answer: Json) -> Json:
        return answer | {"request_id": "01890000-0000-7000-8000-000000000000"}

    place.gateway.bundle, place.gateway.tell = b"", under_its_id
    assert refused(place, place.client()) == "answer_refuted"


def test_an_old_answer_given_again_is_withheld(place: Place) -> None:
    made_ms = place.gateway.made.served.request.job.message.created_ms
    hour_later = place.client(now_ms=lambda: made_ms + 3_600_000)
    assert refused(place, hour_later) == "answer_refuted"


def test_a_dearer_answer_than_allowed_is_withheld(place: Place) -> None:
    total = place.gateway.made.served.receipt.message.total
    assert place.ask(place.client(place.trust(max_cost_units=total))) == text(place)
    assert refused(place, place.client(place.trust(max_cost_units=total - 1))) == "answer_refuted"


def test_a_damaged_bundle_is_withheld(place: Place) -> None:
    place.gateway.bundle = place.gateway.made.raw[:-1]
    assert refused(place, place.client()) == "answer_refuted"
    document = {n: v for n, v in place.gateway.made.document.items() if n != "transcript"}
    place.gateway.bundle = pack(document)
    assert refused(place, place.client()) in {"answer_unproven", "answer_refuted"}


def test_what_a_policy_needs_and_lacks_is_withheld(place: Place) -> None:
    """Without the transcript V7 can't be judged; a policy that doesn't ask for it is content."""
    document = {n: v for n, v in place.gateway.made.document.items() if n != "transcript"}
    place.gateway.bundle = pack(document)
    policy = client.answers(place.factory.domain, simulated=True)
    easy = place.trust(policy=replace(policy, needs=policy.needs - {"V7"}))
    assert refused(place, place.client()) == "answer_unproven"
    assert place.ask(place.client(easy)) == text(place)


def test_a_large_auctions_book_is_fetched_and_checked(kind: Kind) -> None:
    """More than 256 offers stand apart from the bundle; without them V7 can't be judged."""
    market = crowd()
    with serving(LyingGateway(of(market.factory, market.made))) as gateway, ExitStack() as closing:
        place = Place(market.factory, gateway, closing, kind)
        assert refused(place, place.client()) == "answer_unproven"
        asked = list[bytes]()

        def books(root: bytes) -> object:
            asked.append(root)
            return market.book()

        assert place.ask(place.client(place.trust(books=books))) == text(place)
        assert asked
        other = {"rows": market.book()["rows"][1:]}
        assert refused(place, place.client(place.trust(books=lambda _: other)))
        nowhere = client.books_at("http://127.0.0.1:9")
        assert refused(place, place.client(place.trust(books=nowhere))) == "answer_unproven"


def test_a_chain_that_cannot_be_asked_is_fail_closed(place: Place) -> None:
    def unreachable() -> ChainFacts:
        raise TransportFailure("no chain")

    assert refused(place, place.client(place.trust(chain=unreachable))) == "answer_unproven"


def test_a_view_of_the_chain_that_is_too_old_is_renewed(eager: Place) -> None:
    """An epoch that an older view does not know does not refute an answer."""
    old = network().chain
    old.epochs.clear()
    views: list[ChainFacts] = [old, eager.factory.chain]
    http = eager.client(eager.trust(chain=lambda: views.pop(0)))
    assert refused(eager, http) == "answer_refuted"
    assert eager.ask(http) == text(eager)
    assert eager.ask(http) == text(eager), "a young view serves on"


@pytest.mark.parametrize("breaks_off", [True, False])
def test_a_stream_without_its_end_is_an_error(place: Place, breaks_off: bool) -> None:  # noqa: FBT001
    """A dropped connection is no short answer; nor is the end shown before the verdict."""
    place.gateway.breaks_off = breaks_off
    place.gateway.ends = b""
    assert refused(place, place.client(), stream=True) == "receipt_missing"
    assert not place.gateway.fetched


def test_no_finish_reason_is_shown_before_the_verdict(plain: Place) -> None:
    plain.gateway.tell = _other_text
    seen = list[Any]()
    stream = plain.sdk(plain.client()).chat.completions.create(**plain.arguments(), stream=True)
    with pytest.raises(openai.APIError, match="withheld"):
        seen.extend(chunk for chunk in stream)
    assert seen
    assert not any(chunk.choices[0].finish_reason for chunk in seen)


def test_the_gateways_own_error_in_a_stream_stays_what_it_is(place: Place) -> None:
    place.gateway.ends = b'data: {"error": {"message": "cut", "code": "stream_broken"}}\n\n'
    with pytest.raises(openai.APIError, match="cut"):
        place.ask(place.client(), stream=True)


def test_what_cannot_be_verified_is_not_sent(plain: Place) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        plain.sdk(plain.client()).responses.create(model="m", input="Hi.")
    assert caught.value.code == "answer_unproven"
    assert not plain.gateway.asked


@pytest.mark.parametrize("stream", [False, True])
def test_lazy_answers_come_at_once_and_are_judged_beside(lazy: Place, stream: bool) -> None:  # noqa: FBT001
    lazy.gateway.not_yet = 10**6
    http = lazy.client()
    assert lazy.given(http, stream=stream) == text(lazy)
    (one,) = http.unverified()
    assert (one.request_id, one.error) == (lazy.gateway.request_id, None)
    lazy.gateway.not_yet = 0
    http.require_verified(10)
    assert http.unverified() == []


@pytest.mark.parametrize("stream", [False, True])
def test_lazy_lies_are_listed_and_raised(lazy: Place, stream: bool) -> None:  # noqa: FBT001
    lazy.gateway.tell = _other_text
    http = lazy.client()
    assert lazy.given(http, stream=stream).endswith("not!")
    with pytest.raises(client.AnswerRefuted, match="V5"):
        http.require_verified(10)
    (one,) = http.unverified()
    assert one.request_id == lazy.gateway.request_id
    assert isinstance(one.error, client.AnswerRefuted)


def test_what_a_lazy_client_had_not_verified_when_it_closed_stays_unverified(lazy: Place) -> None:
    lazy.gateway.not_yet = 10**6
    http = lazy.client(within_s=0.5)
    lazy.given(http)
    if isinstance(http, VerifyingClient):
        http.close()
    else:
        trio.run(http.aclose)
    with pytest.raises((client.AnswerUnproven, client.ReceiptMissing)):
        http.require_verified(10)


def test_a_trust_that_can_never_be_met_is_said_at_once(plain: Place) -> None:
    policy = client.answers(plain.factory.domain)
    with pytest.raises(Misconfigured, match="pin the epoch's signer"):
        client.verifying(client.Trust(policy=policy))
    with pytest.raises(Misconfigured, match="V1 and V2"):
        client.verifying(client.Trust(policy=policy, signers=frozenset({b"\x01" * 20})))
    counted = client.answers(plain.factory.domain, counted=True)
    with pytest.raises(Misconfigured, match="V9"):
        client.verifying(client.Trust(policy=counted, chain=lambda: plain.factory.chain))
