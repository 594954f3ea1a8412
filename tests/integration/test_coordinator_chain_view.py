"""What the coordinator reads of payers and of the debit limiter, against the real contracts."""

import time
from collections.abc import Iterator

import pytest

from coordinator.chain_view import ContractView
from coordinator.limit import fitting
from coordinator.log import Leaf
from pinaivu.chain.anvil import AnvilProcess
from pinaivu.chain.deployer import LOCAL
from pinaivu.chain.errors import ChainUnavailable, Reverted
from pinaivu.chain.rpc import HttpRpc
from pinaivu.messages import Batch
from pinaivu.settlement import net as netted
from pinaivu.typed_data import Signed
from tests.integration.chain_network import GENESIS_AGE_S, Network

pytestmark = pytest.mark.chain

WALLET = b"\xfa" * 20
TUSD = 10**6


@pytest.fixture
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    state = tmp_path_factory.mktemp("view") / "state.json"
    began = int(time.time()) - GENESIS_AGE_S
    with AnvilProcess(state, genesis_s=began) as chain, HttpRpc(chain.url) as endpoint:
        yield Network(endpoint)


def batch_of(net: Network, count: int) -> Signed[Batch]:
    """The next batch, over so many of the receipts that wait."""
    last = net.client.anchor(net.log_id)
    stop = last.new_size + count
    money = netted(net.receipts[last.new_size : stop])
    return net.batch(
        last,
        new_size=stop,
        new_root=net.tree.root(stop),
        parties=len(money.statements),
        statement_root=money.statement_root,
        fees=money.fees,
        debits=money.debits,
        credits=money.credits,
    )


def settle(net: Network, count: int) -> None:
    last = net.client.anchor(net.log_id)
    made = batch_of(net, count)
    proof = net.tree.consistency_proof(last.new_size, count) if last.new_size else []
    net.sender().send(net.calls.settle(made, proof, last))


def test_a_batch_cut_to_the_limiter_is_taken_and_one_more_receipt_is_not(net: Network) -> None:
    """With payers covered, short and gone; by the block's own figures."""
    view = ContractView(net.client)
    node = net.node(WALLET).address
    rich, short, gone = net.payer(60 * TUSD), net.payer(4 * TUSD), net.sender()
    amounts = [
        (rich, 20 * TUSD),
        (short, 9 * TUSD),  # 4 from its deposit, the rest from nowhere
        (gone, 30 * TUSD),
        (rich, 8 * TUSD),
        (rich, 1),
    ]
    for payer, amount in amounts:
        net.serve(payer.address, node, amount, 0)
    payers = [payer.address for payer in (rich, short, gone)]
    funds = view.newest_funds(net.log_id, payers)
    assert funds.debitable == 64 * TUSD * LOCAL.debit_limit_ppm // 10**6 == 32 * TUSD
    assert funds.debitable == view.debitable(net.log_id)
    assert funds.balances == dict(zip(payers, (60 * TUSD, 4 * TUSD, 0), strict=True))
    leaves = [Leaf(Signed(receipt, bytes(65)), bytes(32), 0) for receipt in net.receipts]
    assert fitting(leaves, funds) == 4
    with pytest.raises(Reverted, match="DebitLimitExceeded"):
        settle(net, 5)
    settle(net, 4)
    anchor = view.newest_anchor(net.log_id)
    assert (anchor.sequence, anchor.size) == (1, 4)
    assert view.anchor_of(net.log_id, 1) == anchor
    with pytest.raises(ChainUnavailable):
        view.anchor_of(net.log_id, 2)


def test_a_move_and_a_withdrawal_count_as_leaving(net: Network) -> None:
    """From the request on, long before either can be made, and whatever is deposited after it."""
    view = ContractView(net.client)
    payer = net.payer(10 * TUSD)
    payer.send(net.calls.request_withdrawal(4 * TUSD))
    assert (view.payer(payer.address).balance, view.payer(payer.address).leaving) == (
        10 * TUSD,
        4 * TUSD,
    )
    payer.send(net.calls.request_move(bytes(32)))
    assert view.payer(payer.address).leaving == 10 * TUSD
    payer.send(net.calls.request_move(net.log_id))  # to where it is: cancelled
    assert view.payer(payer.address).leaving == 4 * TUSD


def test_money_that_has_moved_is_not_this_logs(net: Network) -> None:
    view = ContractView(net.client)
    payer = net.payer(10 * TUSD)
    assert view.newest_funds(net.log_id, [payer.address]).balances == {payer.address: 10 * TUSD}
    payer.send(net.calls.request_move(bytes(32)))
    net.rpc.call("evm_increaseTime", net.client.times().withdrawal_delay_ms // 1000)
    net.rpc.call("evm_mine")
    payer.send(net.calls.complete_move())
    assert view.newest_funds(net.log_id, [payer.address]).balances == {payer.address: 0}
    assert view.newest_funds(net.log_id, ()).debitable == 0
