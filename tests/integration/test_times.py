"""The order of times, tried at each border on the constructors themselves."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pinaivu.chain.anvil import AnvilProcess, fund
from pinaivu.chain.deployer import LOCAL, Powers, Settings, deploy
from pinaivu.chain.errors import Reverted
from pinaivu.chain.rpc import HttpRpc
from pinaivu.chain.transactor import Transactor
from tests.integration.chain_support import QUICK
from tests.integration.timed_chain import key_of

pytestmark = pytest.mark.chain

TIMES = LOCAL.times
SECOND = 1000


@pytest.fixture(scope="module")
def rpc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpRpc]:
    state = Path(tmp_path_factory.mktemp("times")) / "state.json"
    with AnvilProcess(state) as anvil, HttpRpc(anvil.url) as endpoint:
        yield endpoint


def attempt(rpc: HttpRpc, settings: Settings) -> None:
    """Deploy with these settings."""
    key = key_of("deployer")
    fund(rpc, key.address)
    sender = Transactor(rpc, 31337, key, pace=QUICK)
    me = key.address
    deploy(rpc, sender, Powers(me, me, me, me), settings)


REFUSED = {
    "unsettled_max_ms": [0, TIMES.pause_max_ms, TIMES.pause_max_ms + SECOND],
    "pause_max_ms": [0, TIMES.withdrawal_delay_ms, TIMES.unsettled_max_ms],
    "withdrawal_delay_ms": [
        0,
        TIMES.admin_delay_ms,
        TIMES.unsettled_max_ms + TIMES.pause_max_ms,
    ],
    "admin_delay_ms": [0, TIMES.withdrawal_delay_ms, TIMES.withdrawal_delay_ms - SECOND],
    "pause_interval_ms": [0, TIMES.withdrawal_delay_ms, TIMES.withdrawal_delay_ms - SECOND],
    "limiter_window_ms": [0, TIMES.pause_max_ms - SECOND],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values]
)
def test_times_that_are_equal_zero_or_out_of_order_are_refused(
    rpc: HttpRpc, name: str, value: int
) -> None:
    with pytest.raises(Reverted, match="InvalidTimes"):
        attempt(rpc, replace(LOCAL, times=replace(TIMES, **{name: value})))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("unsettled_max_ms", SECOND),
        ("unsettled_max_ms", TIMES.pause_max_ms - SECOND),
        ("pause_max_ms", TIMES.withdrawal_delay_ms - TIMES.unsettled_max_ms - SECOND),
        ("withdrawal_delay_ms", TIMES.admin_delay_ms - SECOND),
        ("pause_interval_ms", TIMES.withdrawal_delay_ms + SECOND),
        ("limiter_window_ms", TIMES.pause_max_ms),
        ("admin_delay_ms", TIMES.withdrawal_delay_ms + SECOND),
    ],
)
def test_a_second_of_distance_is_enough(rpc: HttpRpc, name: str, value: int) -> None:
    """Everything else that belongs to the delays grows with them."""
    attempt(rpc, replace(LOCAL, times=replace(TIMES, **{name: value})))


@pytest.mark.parametrize("ppm", [0, 9_999, 1_000_001])
def test_a_debit_limit_outside_one_to_a_hundred_percent_is_refused(rpc: HttpRpc, ppm: int) -> None:
    with pytest.raises(Reverted, match="InvalidDebitLimit"):
        attempt(rpc, replace(LOCAL, debit_limit_ppm=ppm))


@pytest.mark.parametrize("name", ["payout_delay_ms", "unbonding_delay_ms"])
def test_nodes_money_moves_no_sooner_than_payers(rpc: HttpRpc, name: str) -> None:
    """Who steals a node's key gives its owner as long to notice."""
    with pytest.raises(Reverted, match="WrongWiring"):
        attempt(rpc, replace(LOCAL, **{name: TIMES.withdrawal_delay_ms - SECOND}))  # type: ignore[arg-type]
    attempt(rpc, replace(LOCAL, **{name: TIMES.withdrawal_delay_ms}))  # type: ignore[arg-type]
