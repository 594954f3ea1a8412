"""`ContractFacts` on a real chain says what happened there, also of blocks long gone."""

import time
from collections.abc import Iterator

import pytest

from pinaivu.chain.anvil import AnvilProcess
from pinaivu.chain.deployer import LOCAL
from pinaivu.chain.errors import ChainUnavailable
from pinaivu.chain.facts import BOOK_SKEW_MS, ContractFacts
from pinaivu.chain.rpc import HttpRpc
from pinaivu.codes import Role
from pinaivu.keccak import keccak
from pinaivu.keys import ZERO_ADDRESS
from pinaivu.settlement import unpack_rows
from tests.integration.chain_network import (
    GENESIS_AGE_S,
    MEASUREMENT,
    MODEL,
    MODEL_RECORD,
    PARAMETERS,
    Network,
    new_key,
)

pytestmark = pytest.mark.chain

WALLET = b"\xfa" * 20
OTHER_WALLET = b"\xfb" * 20


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    began = int(time.time()) - GENESIS_AGE_S
    state = tmp_path_factory.mktemp("facts") / "state.json"
    with AnvilProcess(state, genesis_s=began) as chain, HttpRpc(chain.url) as endpoint:
        yield Network(endpoint)


def facts(network: Network) -> ContractFacts:
    return ContractFacts(network.client)


def later(network: Network, seconds: int) -> None:
    network.rpc.call("evm_increaseTime", seconds)
    network.rpc.call("evm_mine")


def test_an_epoch_comes_with_its_code(network: Network) -> None:
    found = facts(network).epoch(network.log_id, 1)
    assert found is not None
    assert found.key == network.epoch_key.address
    assert (found.measurement, found.parameters_digest) == (MEASUREMENT, PARAMETERS)
    assert 0 < found.pair_allowed_from_ms <= found.activated_at_ms < found.expires_at_ms
    assert facts(network).epoch(network.log_id, 2) is None


def test_a_model_is_what_it_was_at_a_block(network: Network) -> None:
    before = facts(network)
    key = keccak(MODEL.encode())
    known = before.model(key, before.block)
    assert known is not None
    assert (known.fingerprint, known.ratio_ppm) == (MODEL_RECORD.fingerprint, 250_000)
    assert before.model(key, network.deployment.block) is None, "it was not registered yet"
    network.admin.send(network.calls.remove_model(MODEL))
    after = facts(network)
    assert after.model(key, before.block) == known
    assert after.model(key, after.block) is None
    network.admin.send(network.calls.set_model(MODEL, MODEL_RECORD))
    assert facts(network).model(key, facts(network).block) == known


def test_grant_epochs_are_those_around_a_time(network: Network) -> None:
    payer = network.payer(10**6)
    long_ago = network.client.block().time_ms
    later(network, 3_600)
    payer.send(network.calls.bump_grant_epoch())
    bumped = network.client.block().time_ms
    later(network, 3_600)
    found = facts(network)
    assert found.grant_epoch(payer.address, long_ago) == {0}
    assert found.grant_epoch(payer.address, bumped) == {0, 1}
    assert found.grant_epoch(payer.address, bumped + 3_600_000) == {1}


def test_a_settled_batch_and_what_its_node_earned(network: Network) -> None:
    node, payer = network.node(WALLET), network.payer(10**6)
    network.serve(payer.address, node.address, 500, 10)
    last = network.client.anchor(network.log_id)
    batch = network.batch(last)
    assert facts(network).anchor_word(network.log_id, batch.message.sequence) is None
    assert facts(network).settlement(network.log_id, batch.message.sequence) is None
    network.settle(network.admin)
    found = facts(network)
    fact = found.settlement(network.log_id, batch.message.sequence)
    assert fact is not None
    word = found.anchor_word(network.log_id, batch.message.sequence)
    assert word is not None
    assert (fact.due, fact.backed, fact.debited, fact.fees) == (500, 500, 500, 10)
    assert fact.shorts == {}
    anchored = network.client.anchor(network.log_id)
    assert (word, fact.batch_digest) == (anchored.word, anchored.batch_digest)
    assert unpack_rows(batch.message.credits)[node.address] == 490
    assert found.earnings(node.address).credit == 490
    network.admin.send(network.calls.payout([node.address]))
    earned = facts(network).earnings(node.address)
    assert (earned.lifetime, earned.credit) == (490, 0)
    assert [(p.wallet, p.registered, p.amount) for p in earned.payouts] == [(WALLET, WALLET, 490)]


def test_a_payer_that_is_short_is_told_of(network: Network) -> None:
    node, payer = network.node(WALLET), network.payer(300)
    network.serve(payer.address, node.address, 500, 10)
    network.settle(network.admin)
    sequence = network.client.anchor(network.log_id).sequence
    fact = facts(network).settlement(network.log_id, sequence)
    assert fact is not None
    assert (fact.due, fact.backed, fact.debited) == (500, 300, 300)
    assert fact.shorts == {payer.address: (0, 200)}
    assert fact.fees == 10 * 300 // 500
    assert facts(network).earnings(node.address).lifetime == 490 * 300 // 500


def test_a_wallet_is_the_one_in_force_at_a_block(network: Network) -> None:
    node = network.node(WALLET)
    registered = facts(network)
    peer_of = network.client.node(node.address)
    assert peer_of is not None
    peer = new_key()
    proof = network.binding(node.address, Role.NODE, peer)
    node.send(network.calls.register_node(OTHER_WALLET, peer.point, proof))
    waiting = facts(network)
    later(network, 2 * 86_400 * 30)
    changed = facts(network)
    seen = [
        changed.node(node.address, block)
        for block in (registered.block, waiting.block, changed.block)
    ]
    assert [fact.payout for fact in seen if fact] == [WALLET, WALLET, OTHER_WALLET]
    assert changed.node(node.address) == seen[-1]
    assert changed.node(b"\x01" * 20) is None
    with pytest.raises(ChainUnavailable):
        registered.node(node.address, changed.block)
    now = network.client.node(node.address, changed.block)
    assert now is not None
    assert now.registered_at_ms == (seen[0].registered_at_ms if seen[0] else 0)


def test_a_wallet_that_came_into_force_lately_is_told_with_the_former(network: Network) -> None:
    """Time brings it into force, without an event at that moment."""
    node = network.node(WALLET)
    peer = new_key()
    proof = network.binding(node.address, Role.NODE, peer)
    node.send(network.calls.register_node(OTHER_WALLET, peer.point, proof))
    later(network, (LOCAL.payout_delay_ms + BOOK_SKEW_MS // 2) // 1000)
    soon = facts(network).node(node.address)
    later(network, BOOK_SKEW_MS // 1000)
    late = facts(network).node(node.address)
    assert soon is not None
    assert late is not None
    assert (soon.payout, late.payout) == (OTHER_WALLET, OTHER_WALLET)
    assert soon.lately == {(WALLET, ZERO_ADDRESS)}
    assert late.lately == set()
