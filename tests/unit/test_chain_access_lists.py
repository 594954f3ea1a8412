"""Access lists: asked for where a call is wide, used where they save gas."""

from collections.abc import Sequence
from typing import Any

import pytest

from pinaivu.chain.access_lists import AccessList, access_list, saving
from pinaivu.chain.calls import Call
from pinaivu.chain.errors import ChainUnavailable, RpcRefused

SENDER, TO, OTHER = b"\x01" * 20, b"\xaa" * 20, b"\xbb" * 20
WIDE = Call("settling", TO, b"\x05", wide=True)


class Endpoint:
    """A double of an endpoint that knows one answer."""

    endpoint = "double"

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.asked: list[tuple[object, ...]] = []

    def call(self, method: str, *params: object) -> Any:
        """The answer, or the error."""
        self.asked.append((method, *params))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def batch(self, requests: Sequence[object]) -> list[Any]:
        """Never needed."""
        raise AssertionError(requests)


def slots(count: int) -> tuple[bytes, ...]:
    return tuple(number.to_bytes(32) for number in range(count))


def answer(entries: AccessList) -> dict[str, Any]:
    return {
        "accessList": [
            {"address": "0x" + address.hex(), "storageKeys": ["0x" + key.hex() for key in keys]}
            for address, keys in entries
        ]
    }


@pytest.mark.parametrize(
    ("entries", "gas"),
    [
        ((), 0),
        (((TO, slots(23)),), -100),
        (((TO, slots(24)),), 0),
        (((TO, slots(25)),), 100),
        (((OTHER, slots(2)),), 300),
        (((TO, slots(59)), (OTHER, slots(2))), 3_800),
    ],
)
def test_saving_by_the_prices_of_eip_2929(entries: AccessList, gas: int) -> None:
    assert saving(entries, TO) == gas


def test_wide_call_takes_the_list_that_the_endpoint_names() -> None:
    """Asked on top of what is pending, as the gas estimate is."""
    entries = ((TO, slots(30)), (OTHER, slots(1)))
    endpoint = Endpoint(answer(entries))
    assert access_list(endpoint, SENDER, WIDE) == entries
    ((method, request, block),) = endpoint.asked
    assert (method, block) == ("eth_createAccessList", "pending")
    assert request == {"from": "0x" + "01" * 20, "to": "0x" + "aa" * 20, "data": "0x05"}


def test_list_that_saves_nothing_is_left_out() -> None:
    assert access_list(Endpoint(answer(((TO, slots(24)),))), SENDER, WIDE) == ()


def test_ordinary_call_asks_nothing() -> None:
    endpoint = Endpoint(answer(()))
    assert access_list(endpoint, SENDER, Call("depositing", TO, b"")) == ()
    assert endpoint.asked == []


def test_endpoint_without_the_method_costs_the_saving_only() -> None:
    refused = RpcRefused("eth_createAccessList", -32601, "method not found")
    assert access_list(Endpoint(refused), SENDER, WIDE) == ()


def test_endpoint_that_is_away_is_said() -> None:
    with pytest.raises(ChainUnavailable):
        access_list(Endpoint(ChainUnavailable("away")), SENDER, WIDE)
