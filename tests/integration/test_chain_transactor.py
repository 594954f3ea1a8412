"""Sending transactions to a real chain, and everything that goes wrong on the way."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from eth_abi.abi import encode

from pinaivu.chain.anvil import CHAIN_ID, AnvilProcess
from pinaivu.chain.calls import Call
from pinaivu.chain.errors import (
    CallTooLarge,
    ChainUnavailable,
    NoGasMoney,
    NonceTaken,
    Reverted,
    TransactionPending,
    WrongChain,
)
from pinaivu.chain.rpc import HttpRpc
from pinaivu.chain.transactor import Transactor
from pinaivu.chain.words import quantity, to_hex
from pinaivu.keys import SecretKey
from tests.integration.chain_support import (
    LOOP_FOREVER,
    QUICK,
    REVERT_WITH_CALLDATA,
    SUCCEED_ONCE,
    deploy_code,
    funded_transactor,
)

pytestmark = pytest.mark.chain

BOB = bytes.fromhex("b0b0000000000000000000000000000000000000")


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[AnvilProcess]:
    with AnvilProcess(tmp_path / "state.json") as running:
        yield running


@pytest.fixture
def rpc(chain: AnvilProcess) -> Iterator[HttpRpc]:
    with HttpRpc(chain.url) as endpoint:
        yield endpoint


def _pay(wei: int) -> Call:
    return Call("payment", BOB, b"", value=wei)


def _received(rpc: HttpRpc) -> int:
    return quantity(rpc.call("eth_getBalance", to_hex(BOB), "latest"))


def _nonce(rpc: HttpRpc, sender: Transactor) -> int:
    return quantity(rpc.call("eth_getTransactionCount", to_hex(sender.address), "latest"))


def _mining(rpc: HttpRpc, *, on: bool) -> None:
    rpc.call("evm_setAutomine", on)


def test_a_payment_arrives_and_its_outcome_names_block_and_gas(rpc: HttpRpc) -> None:
    sender = funded_transactor(rpc)
    outcome = sender.send(_pay(5))
    assert _received(rpc) == 5
    assert outcome.gas_used == 21_000
    block = rpc.call("eth_getBlockByNumber", hex(outcome.block_number), False)
    assert block["hash"] == to_hex(outcome.block_hash)
    assert block["transactions"] == [to_hex(outcome.tx_hash)]


def test_a_call_that_would_fail_is_not_sent_and_says_why(rpc: HttpRpc) -> None:
    """The contract's reason comes back decoded; no nonce is used."""
    sender = funded_transactor(rpc)
    contract = deploy_code(sender, REVERT_WITH_CALLDATA)
    before = _nonce(rpc, sender)
    reason = bytes.fromhex("08c379a0") + encode(["string"], ["not today"])
    with pytest.raises(Reverted, match="not today") as caught:
        sender.send(Call("asking", contract, reason))
    assert (caught.value.name, caught.value.arguments) == ("Error", {"reason": "not today"})
    assert _nonce(rpc, sender) == before


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (bytes.fromhex("4e487b71") + (0x11).to_bytes(32), "Panic"),
        (bytes.fromhex("deadbeef"), "0xdeadbeef"),
        (bytes.fromhex("08c379a0ff"), "0x08c379a0ff"),
        (b"", ""),
    ],
    ids=["panic", "unknown error", "malformed reason", "no reason"],
)
def test_other_reverts_are_named_as_far_as_known(rpc: HttpRpc, data: bytes, name: str) -> None:
    sender = funded_transactor(rpc)
    contract = deploy_code(sender, REVERT_WITH_CALLDATA)
    with pytest.raises(Reverted) as caught:
        sender.send(Call("asking", contract, data))
    assert (caught.value.name, caught.value.data) == (name, data)


def test_a_call_that_fails_when_mined_is_reverted_with_its_transaction(rpc: HttpRpc) -> None:
    """Between estimate and block somebody else was faster."""
    sender, rival = funded_transactor(rpc), funded_transactor(rpc)
    contract = deploy_code(sender, SUCCEED_ONCE)
    _mining(rpc, on=False)
    mine = sender.submit(Call("being first", contract, b""))
    theirs = {"from": to_hex(rival.address), "to": to_hex(contract), "gas": hex(100_000)}
    rpc.call("anvil_impersonateAccount", to_hex(rival.address))
    higher = {"maxPriorityFeePerGas": hex(10**10), "maxFeePerGas": hex(10**11)}
    rpc.call("eth_sendTransaction", {**theirs, **higher})
    rpc.call("anvil_mine", "0x1")
    with pytest.raises(Reverted, match="being first") as caught:
        sender.wait(mine)
    assert caught.value.tx_hash == mine.hashes[0]


def test_a_wrong_chain_is_refused_before_anything_is_signed(rpc: HttpRpc) -> None:
    """Both chain ids stand in the message."""
    sender = Transactor(rpc, 1, SecretKey.generate(os.urandom))
    with pytest.raises(WrongChain, match=r"31337.*chain 1;") as caught:
        sender.send(_pay(1))
    assert (caught.value.expected, caught.value.found) == (1, CHAIN_ID)


def test_an_account_without_coin_is_told_so(rpc: HttpRpc) -> None:
    sender = Transactor(rpc, CHAIN_ID, SecretKey.generate(os.urandom))
    with pytest.raises(NoGasMoney, match="send coin"):
        sender.send(_pay(1))


def test_a_call_beyond_one_transaction_is_too_large(rpc: HttpRpc) -> None:
    sender = funded_transactor(rpc)
    contract = deploy_code(sender, LOOP_FOREVER)
    with pytest.raises(CallTooLarge):
        sender.send(Call("endless", contract, b""))


def test_a_dead_endpoint_is_unavailable(chain: AnvilProcess, rpc: HttpRpc) -> None:
    sender = funded_transactor(rpc)
    chain.kill()
    with pytest.raises(ChainUnavailable, match="no answer"):
        sender.send(_pay(1))


def test_threads_share_one_sender_without_losing_or_doubling(rpc: HttpRpc) -> None:
    """Each call is mined exactly once, under its own nonce."""
    sender = funded_transactor(rpc)
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda i: sender.send(_pay(1 << i)), range(24)))
    assert _received(rpc) == (1 << 24) - 1
    assert len({outcome.tx_hash for outcome in outcomes}) == _nonce(rpc, sender) == 24


def test_calls_build_on_each_other_without_waiting(rpc: HttpRpc) -> None:
    """Several are under way at once before any is mined."""
    sender = funded_transactor(rpc)
    _mining(rpc, on=False)
    pending = [sender.submit(_pay(1)) for _ in range(5)]
    assert [p.nonce for p in pending] == list(range(5))
    rpc.call("anvil_mine", "0x1")
    assert {sender.wait(p).block_number for p in pending} == {1}


def test_after_a_foreign_transaction_of_the_same_key_sending_goes_on(rpc: HttpRpc) -> None:
    """The nonce is taken from the chain again."""
    key = SecretKey.generate(os.urandom)
    ours, foreign = funded_transactor(rpc, key), funded_transactor(rpc, key)
    for sender in (ours, foreign, foreign, ours):
        sender.send(_pay(1))
    assert (_received(rpc), _nonce(rpc, ours)) == (4, 4)


def test_a_nonce_lost_to_a_foreign_transaction_is_said_and_nothing_runs_twice(
    rpc: HttpRpc,
) -> None:
    key = SecretKey.generate(os.urandom)
    ours, foreign = funded_transactor(rpc, key), funded_transactor(rpc, key)
    _mining(rpc, on=False)
    pending = ours.submit(_pay(1))
    rpc.call("anvil_dropTransaction", to_hex(pending.hashes[0]))
    _mining(rpc, on=True)
    foreign.send(_pay(100))
    with pytest.raises(NonceTaken, match="nonce 0"):
        ours.wait(pending)
    assert _received(rpc) == 100
    ours.send(_pay(1))
    assert _received(rpc) == 101


def test_a_forgotten_transaction_is_sent_again(rpc: HttpRpc) -> None:
    """A pool may drop what it took."""
    sender = funded_transactor(rpc)
    _mining(rpc, on=False)
    pending = sender.submit(_pay(7))
    rpc.call("anvil_dropTransaction", to_hex(pending.hashes[0]))
    _mining(rpc, on=True)
    assert sender.wait(pending).tx_hash == pending.hashes[0]
    assert _received(rpc) == 7


def test_a_nonce_under_way_is_not_given_out_again_though_the_endpoint_forgot_it(
    rpc: HttpRpc,
) -> None:
    """Waiting for the later call also brings the earlier one back."""
    sender = funded_transactor(rpc)
    _mining(rpc, on=False)
    first = sender.submit(_pay(1))
    rpc.call("anvil_dropTransaction", to_hex(first.hashes[0]))
    second = sender.submit(_pay(2))
    assert (first.nonce, second.nonce) == (0, 1)
    _mining(rpc, on=True)
    sender.wait(second)
    assert sender.wait(first).tx_hash == first.hashes[0]
    assert _received(rpc) == 3


def test_a_stuck_transaction_is_replaced_at_a_higher_fee_and_mined_once(rpc: HttpRpc) -> None:
    """The base fee rose above what was offered."""
    sender = funded_transactor(rpc)
    _mining(rpc, on=False)
    pending = sender.submit(_pay(3))
    first = pending.fees
    rpc.call("anvil_setNextBlockBaseFeePerGas", hex(first.ceiling * 3))
    rpc.call("anvil_mine", "0x1")
    _mining(rpc, on=True)
    outcome = sender.wait(pending)
    assert outcome.tx_hash == pending.hashes[-1] != pending.hashes[0]
    assert pending.fees.ceiling >= first.ceiling * 3
    assert (_received(rpc), _nonce(rpc, sender)) == (3, 1)


def test_at_the_deadline_the_call_can_be_waited_for_again(rpc: HttpRpc) -> None:
    """Nothing is sent anew, so it is mined once."""
    sender = funded_transactor(rpc)
    _mining(rpc, on=False)
    with pytest.raises(TransactionPending, match="not mined yet") as caught:
        sender.send(_pay(9), deadline_s=0.3)
    _mining(rpc, on=True)
    rpc.call("anvil_mine", "0x1")
    sender.wait(caught.value.pending)
    assert (_received(rpc), _nonce(rpc, sender)) == (9, 1)


def test_confirmations_are_waited_for(rpc: HttpRpc) -> None:
    """A mined transaction is not taken for a lost one meanwhile."""
    sender = funded_transactor(rpc)
    pending = sender.submit(_pay(1))
    with pytest.raises(TransactionPending):
        sender.wait(pending, confirmations=2, deadline_s=0.5)
    rpc.call("anvil_mine", "0x2")
    assert sender.wait(pending, confirmations=2).block_number == 1


def test_a_chain_that_rolled_back_gets_its_missing_nonces_filled(rpc: HttpRpc) -> None:
    """What was mined before is gone; what came after must not hang, nor run under two nonces."""
    sender = funded_transactor(rpc)
    before = rpc.call("evm_snapshot")
    sender.send(_pay(1))
    _mining(rpc, on=False)
    pending = sender.submit(_pay(10))
    assert pending.nonce == 1
    rpc.call("evm_revert", before)
    _mining(rpc, on=True)
    sender.wait(pending)
    assert (_received(rpc), _nonce(rpc, sender)) == (10, 2)


def test_a_call_survives_a_crash_of_the_chain(chain: AnvilProcess, rpc: HttpRpc) -> None:
    """It is sent again under the same nonce when the endpoint is back."""
    sender = funded_transactor(rpc)
    _mining(rpc, on=False)
    pending = sender.submit(_pay(6))
    chain.stop()  # in order: what the crash would lose is the pool
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(sender.wait, pending)
        chain.start()
        assert waiting.result(30).tx_hash in pending.hashes
    assert (_received(rpc), _nonce(rpc, sender)) == (6, 1)


def test_an_endpoint_that_dies_during_the_broadcast_costs_nothing(
    chain: AnvilProcess, rpc: HttpRpc
) -> None:
    """Whether the bytes arrived is unknown, so the same bytes follow: mined once."""

    class DiesOnBroadcast(HttpRpc):
        def call(self, method: str, *params: object) -> object:
            if method == "eth_sendRawTransaction" and chain.pid:
                chain.stop()
            return super().call(method, *params)

    key = SecretKey.generate(os.urandom)
    funded_transactor(rpc, key)
    with DiesOnBroadcast(chain.url) as dying:
        pending = Transactor(dying, CHAIN_ID, key, pace=QUICK).submit(_pay(8))
    chain.start()
    sender = Transactor(rpc, CHAIN_ID, key, pace=QUICK)
    assert sender.wait(pending).tx_hash in pending.hashes
    assert (_received(rpc), _nonce(rpc, sender)) == (8, 1)
