"""Deposit, assign, settle, pay out, leave: the real contracts on a real chain, end to end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pinaivu.chain.abi import load
from pinaivu.chain.anvil import AnvilProcess
from pinaivu.chain.calls import Call, Calls
from pinaivu.chain.client import ChainClient
from pinaivu.chain.deployer import LOCAL, Powers, deploy, deploy_once, fill
from pinaivu.chain.deployment import Deployment
from pinaivu.chain.errors import ChainUnavailable, NotDeployed, Reverted, WrongChain
from pinaivu.chain.events import Advance, Follower, LogReader
from pinaivu.chain.records import Anchor
from pinaivu.chain.roles import role
from pinaivu.chain.rpc import HttpRpc
from pinaivu.codes import Role
from pinaivu.messages import GatewayRegistration, NodeRegistration
from pinaivu.typed_data import Signed
from tests.integration.chain_network import (
    EPOCH_PAIR,
    GENESIS_AGE_S,
    MODEL,
    MODEL_RECORD,
    Network,
    new_key,
)
from tests.integration.chain_support import funded_transactor

pytestmark = pytest.mark.chain

WALLET = bytes.fromhex("0fa11e7000000000000000000000000000000001")
UNKNOWN = bytes.fromhex("dead000000000000000000000000000000000000")
TUSD = 10**6


@contextmanager
def _chain(state: Path) -> Iterator[HttpRpc]:
    began = int(time.time()) - GENESIS_AGE_S
    with AnvilProcess(state, genesis_s=began) as chain, HttpRpc(chain.url) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with _chain(tmp_path_factory.mktemp("network") / "state.json") as rpc:
        yield Network(rpc)


@pytest.fixture
def net(network: Network) -> Iterator[Network]:
    """The network, put back afterwards to what it was."""
    before = network.rpc.call("evm_snapshot")
    yield network
    network.rpc.call("evm_revert", before)
    network.forget()


def _sleep_chain(net: Network, ms: int) -> None:
    net.rpc.call("evm_increaseTime", ms // 1000)
    net.rpc.call("evm_mine")


class TestMoney:
    """From a deposit to a payout wallet."""

    def test_two_batches_debit_payers_credit_nodes_and_pay_wallets(self, net: Network) -> None:
        """Every amount is where the receipts say; the second batch proves the first one's log."""
        alice, bob = net.payer(100 * TUSD), net.payer(50 * TUSD)
        first, second = net.node(WALLET), net.node(WALLET)
        net.serve(alice.address, first.address, 5 * TUSD, 50_000)
        net.serve(alice.address, second.address, 3 * TUSD, 30_000)
        net.serve(bob.address, second.address, 2 * TUSD, 20_000)
        net.settle(net.sender())
        net.serve(bob.address, first.address, 1 * TUSD, 10_000)
        net.serve(alice.address, first.address, 4 * TUSD, 0)
        net.settle(net.sender())

        assert net.client.payer(alice.address).balance == 88 * TUSD
        assert net.client.payer(bob.address).balance == 47 * TUSD
        earned = [10 * TUSD - 60_000, 5 * TUSD - 50_000]
        credits_ = net.client.node_credits([first.address, second.address])
        assert [(c.credit, c.lifetime) for c in credits_] == [(e, e) for e in earned]
        state = net.client.log_state(net.log_id)
        assert (state.sequence, state.fees, state.assigned) == (2, 110_000, 135 * TUSD)

        net.sender().send(net.calls.payout([first.address, second.address]))
        assert net.client.token_balance(WALLET) == sum(earned)
        paid = net.client.node_credits([first.address])[0]
        assert (paid.credit, paid.lifetime) == (0, earned[0])

    def test_a_permit_needs_no_approval(self, net: Network) -> None:
        """One transaction by the owner, checked by the token."""
        key = new_key()
        payer = net.sender(key)
        payer.send(net.calls.mint(payer.address, TUSD))
        deadline_s = net.client.block().time_ms // 1000 + 60
        permit = key.sign(net.client.permit_digest(payer.address, TUSD, deadline_s))
        payer.send(net.calls.deposit_with_permit(payer.address, TUSD, deadline_s, permit))
        assert net.client.payer(payer.address).balance == TUSD

    def test_a_deposit_for_somebody_else(self, net: Network) -> None:
        """The benefactor pays, the payer has the balance."""
        benefactor, payer = net.sender(), net.sender()
        benefactor.send(net.calls.mint(benefactor.address, TUSD))
        benefactor.send(net.calls.approve(TUSD))
        benefactor.send(net.calls.deposit_for(payer.address, TUSD))
        assert net.client.payer(payer.address).balance == TUSD

    def test_a_withdrawal_takes_its_delay_and_nobody_else(self, net: Network) -> None:
        """Request, refused too early, paid in time."""
        payer = net.payer(10 * TUSD)
        payer.send(net.calls.request_withdrawal(4 * TUSD))
        asked = net.client.payer(payer.address)
        assert (asked.balance, asked.requested, asked.spendable) == (10 * TUSD, 4 * TUSD, 6 * TUSD)
        delay = net.client.times().withdrawal_delay_ms
        assert asked.withdrawable_at_ms == net.client.block().time_ms + delay
        with pytest.raises(Reverted, match="TooEarly") as caught:
            payer.send(net.calls.withdraw(WALLET))
        assert caught.value.arguments["availableAt"] == asked.withdrawable_at_ms // 1000
        _sleep_chain(net, delay)
        payer.send(net.calls.withdraw(WALLET))
        assert net.client.token_balance(WALLET) == 4 * TUSD
        assert net.client.payer(payer.address).spendable == 6 * TUSD

    def test_bumping_the_grant_epoch_shows(self, net: Network) -> None:
        """Which revokes older grants."""
        payer = net.payer(TUSD)
        before = net.client.payer(payer.address).grant_epoch
        payer.send(net.calls.bump_grant_epoch())
        assert net.client.payer(payer.address).grant_epoch == before + 1

    def test_many_payers_are_read_at_one_block(self, net: Network) -> None:
        """An older block shows older balances, and strangers are all zero."""
        alice = net.payer(5 * TUSD)
        then = net.client.head()
        alice.send(net.calls.request_withdrawal(TUSD))
        now, stranger = net.client.payers([alice.address, UNKNOWN])
        assert (now.payer, now.requested, now.log_id) == (alice.address, TUSD, net.log_id)
        assert (stranger.balance, stranger.log_id, stranger.grant_epoch) == (0, bytes(32), 0)
        assert net.client.payer(alice.address, then).requested == 0


class TestSettlement:
    """What the contract demands of a batch, and how its refusal reads."""

    @pytest.fixture
    def busy(self, net: Network) -> Network:
        """A network with one settled batch and receipts for the next."""
        payer, node = net.payer(100 * TUSD), net.node(WALLET)
        for _ in range(3):
            net.serve(payer.address, node.address, TUSD, 10_000)
        net.settle(net.admin)
        for _ in range(4):
            net.serve(payer.address, node.address, TUSD, 10_000)
        return net

    def _refusal(self, net: Network, last: Anchor, **changes: object) -> Reverted:
        proof = changes.pop("proof", None) or net.proof(last)
        batch = net.batch(net.client.anchor(net.log_id), **changes)
        with pytest.raises(Reverted) as caught:
            net.admin.send(net.calls.settle(batch, proof, last))  # type: ignore[arg-type]
        return caught.value

    def test_the_anchor_is_found_and_hashes_to_the_slot(self, busy: Network) -> None:
        """Six words from the event, believed only because they hash right."""
        anchor = busy.client.anchor(busy.log_id)
        assert (anchor.sequence, anchor.prev_size, anchor.new_size) == (1, 0, 3)
        assert anchor.new_root == busy.tree.root(3)
        busy.settle(busy.admin)
        assert busy.client.anchor(busy.log_id).prev_size == 3
        assert busy.client.anchor(busy.log_id, 1) == anchor

    def test_a_log_without_batches_has_the_empty_anchor(self, net: Network) -> None:
        """And the same for a block before the first batch."""
        assert net.client.anchor(net.log_id) == Anchor.none(net.log_id)

    def test_a_rewritten_history_is_refused(self, busy: Network) -> None:
        """The tree must extend the anchored one."""
        last = busy.client.anchor(busy.log_id)
        forged = [bytes(32), *busy.proof(last)[1:]]
        assert self._refusal(busy, last, proof=forged).name == "RootMismatch"

    def test_a_batch_signed_by_another_key_is_refused_by_name(self, busy: Network) -> None:
        """The error carries both keys."""
        right, busy.epoch_key = busy.epoch_key, new_key()
        try:
            refusal = self._refusal(busy, busy.client.anchor(busy.log_id))
        finally:
            wrong, busy.epoch_key = busy.epoch_key, right
        assert refusal.name == "WrongSigner"
        assert refusal.arguments == {"key": right.address, "signer": wrong.address}
        assert f"signer=0x{wrong.address.hex()}" in str(refusal)

    def test_a_batch_is_settled_once(self, busy: Network) -> None:
        """Its second submission is refused as out of sequence."""
        last = busy.client.anchor(busy.log_id)
        call = busy.calls.settle(busy.batch(last), busy.proof(last), last)
        busy.admin.send(call)
        with pytest.raises(Reverted, match=r"WrongSequence\(.*expected=3, given=2\)"):
            busy.sender().send(call)

    def test_rows_that_do_not_balance_are_refused(self, busy: Network) -> None:
        """Whoever signed them."""
        last = busy.client.anchor(busy.log_id)
        assert self._refusal(busy, last, fees=1).name == "UnbalancedBatch"

    def test_wrong_words_of_the_last_anchor_are_refused(self, busy: Network) -> None:
        """The preimage must be handed in again."""
        right = busy.client.anchor(busy.log_id)
        wrong = replace(right, prev_size=1)
        assert self._refusal(busy, wrong).name == "AnchorMismatch"

    def test_an_ended_epoch_settles_nothing(self, busy: Network) -> None:
        """The next boot's key signs the same sequence."""
        busy.activate(new_key())
        assert self._refusal(busy, busy.client.anchor(busy.log_id)).name == "WrongEpoch"

    def test_the_contract_confirms_a_settled_receipt_and_no_other(self, busy: Network) -> None:
        """Inclusion, range and anchor are all checked on chain."""
        busy.settle(busy.admin)
        anchor = busy.client.anchor(busy.log_id)
        proof = busy.tree.inclusion_proof(5, 7)
        busy.client.require_settled(busy.receipts[5], 5, proof, anchor)
        with pytest.raises(Reverted, match="RootMismatch"):
            busy.client.require_settled(busy.receipts[4], 5, proof, anchor)
        early = busy.tree.inclusion_proof(1, 7)
        with pytest.raises(Reverted, match="IndexOutsideBatch"):
            busy.client.require_settled(busy.receipts[1], 1, early, anchor)

    def test_an_endpoint_without_the_events_is_named(self, busy: Network) -> None:
        """A pruned endpoint can't say the anchor's words."""

        class Pruned(HttpRpc):
            def call(self, method: str, *params: object) -> object:
                """No logs at all."""
                return [] if method == "eth_getLogs" else super().call(method, *params)

        with (
            Pruned(busy.rpc.endpoint) as rpc,
            pytest.raises(ChainUnavailable, match="keeps logs"),
        ):
            ChainClient(rpc, busy.deployment).anchor(busy.log_id)

    def test_an_endpoint_that_invents_an_anchor_is_not_believed(self, busy: Network) -> None:
        """Its words don't hash to the contract's slot."""

        class Lying(HttpRpc):
            def call(self, method: str, *params: object) -> object:
                """Logs with the last byte of the batch digest changed."""
                result = super().call(method, *params)
                if method == "eth_getLogs":
                    for log in result:
                        digest_end = 2 + 64 * 4
                        log["data"] = (
                            log["data"][: digest_end - 2] + "00" + log["data"][digest_end:]
                        )
                return result

        with Lying(busy.rpc.endpoint) as rpc, pytest.raises(ChainUnavailable, match="no event"):
            ChainClient(rpc, busy.deployment).anchor(busy.log_id)


class TestRegistries:
    """Nodes, gateways, models, code and epochs."""

    def test_a_node_registers_itself(self, net: Network) -> None:
        """Its record gives payout wallet and peer id."""
        peer, node = new_key(), net.sender()
        assert net.client.node(node.address) is None
        proof = net.binding(node.address, Role.NODE, peer)
        node.send(net.calls.register_node(WALLET, peer.point, proof))
        found = net.client.node(node.address)
        assert found is not None
        assert (found.payout, found.peer_point) == (WALLET, peer.point)
        assert found.peer_id.startswith("16Uiu2HA")
        assert found.registered_at_ms == net.client.block().time_ms

    def test_a_new_payout_wallet_waits(self, net: Network) -> None:
        """The old one is paid until then."""
        peer, node = new_key(), net.sender()
        proof = net.binding(node.address, Role.NODE, peer)
        for wallet in (WALLET, UNKNOWN):
            node.send(net.calls.register_node(wallet, peer.point, proof))
        found = net.client.node(node.address)
        assert found is not None
        assert (found.payout, found.next_payout) == (WALLET, UNKNOWN)
        assert found.payout_changes_at_ms == net.client.block().time_ms + LOCAL.payout_delay_ms
        _sleep_chain(net, LOCAL.payout_delay_ms)
        changed = net.client.node(node.address)
        assert changed is not None
        assert (changed.payout, changed.payout_changes_at_ms) == (UNKNOWN, 0)

    def test_a_node_without_coin_is_registered_by_somebody_else(self, net: Network) -> None:
        """By two signatures."""
        key, peer = new_key(), new_key()
        message = NodeRegistration(
            node=key.address,
            payout=WALLET,
            peer_x=peer.point[:32],
            peer_y=peer.point[32:],
            nonce=net.client.registration_nonce("node_registry", key.address),
            deadline_ms=net.client.block().time_ms + 60_000,
        )
        signed = Signed.by(key, net.deployment.domain, message)
        proof = net.binding(key.address, Role.NODE, peer)
        call = net.calls.register_node_by_signature(signed, proof)
        net.sender().send(call)
        assert net.client.nodes([UNKNOWN, key.address])[1] is not None
        with pytest.raises(Reverted, match="WrongNonce"):
            net.sender().send(call)

    def test_a_gateway_registers_either_way(self, net: Network) -> None:
        """Endpoints come back as given."""
        key, peer = new_key(), new_key()
        gateway = net.sender(key)
        assert net.client.gateway(gateway.address) is None
        proof = net.binding(gateway.address, Role.GATEWAY, peer)
        gateway.send(net.calls.register_gateway(peer.point, ["https://a.example"], proof))
        message = GatewayRegistration(
            gateway=key.address,
            peer_x=peer.point[:32],
            peer_y=peer.point[32:],
            nonce=net.client.registration_nonce("gateway_registry", key.address),
            deadline_ms=net.client.block().time_ms + 60_000,
            endpoints=("https://b.example", "/ip4/127.0.0.1/tcp/1"),
        )
        signed = Signed.by(key, net.deployment.domain, message)
        net.sender().send(net.calls.register_gateway_by_signature(signed, proof))
        found = net.client.gateway(key.address)
        assert found is not None
        assert (found.peer_point, found.endpoints) == (peer.point, message.endpoints)

    def test_models_are_found_by_id(self, net: Network) -> None:
        """Unknown ones are None."""
        assert net.client.model(MODEL) == MODEL_RECORD
        assert net.client.model("other") is None
        net.admin.send(net.calls.remove_model(MODEL))
        assert net.client.model(MODEL) is None

    def test_only_the_registrar_sets_models(self, net: Network) -> None:
        """The access manager's refusal is decoded too."""
        with pytest.raises(Reverted, match="AccessManagedUnauthorized"):
            net.sender().send(net.calls.set_model(MODEL, MODEL_RECORD))

    def test_the_active_epoch_names_key_and_attestation(self, net: Network) -> None:
        """And what the verifier's word is worth."""
        epoch = net.client.active_epoch(net.log_id)
        assert epoch is not None
        assert (epoch.number, epoch.key, epoch.revoked_at_ms) == (1, net.epoch_key.address, 0)
        assert epoch.expires_at_ms - epoch.activated_at_ms == LOCAL.epoch_lifetime_ms
        assert epoch.manifest_digest == b"\x3a" * 32
        assert net.client.epoch_count(net.log_id) == 1
        assert net.client.epoch(net.log_id, 2) is None
        assert net.client.verifier()[1].startswith("SIMULATED")

    def test_a_revoked_or_expired_epoch_is_not_active(self, net: Network) -> None:
        """But its record stays."""
        net.admin.send(net.calls.revoke_own_epoch(net.log_id, 1))
        assert net.client.active_epoch(net.log_id) is None
        revoked = net.client.epoch(net.log_id, 1)
        assert revoked is not None
        assert revoked.revoked_at_ms == net.client.block().time_ms
        net.activate(new_key())
        assert net.client.active_epoch(net.log_id) is not None
        _sleep_chain(net, LOCAL.epoch_lifetime_ms)
        assert net.client.active_epoch(net.log_id) is None
        assert net.client.active_epoch(bytes(32)) is None

    def test_code_is_allowed_after_the_delay(self, net: Network) -> None:
        """Proposed, waiting, revoked."""
        pair = net.client.pair(*EPOCH_PAIR)
        assert pair is not None
        assert (pair.measurement, pair.parameters_digest) == EPOCH_PAIR
        assert net.client.pair(*EPOCH_PAIR[::-1]) is None
        net.admin.send(net.calls.propose_pair(*EPOCH_PAIR[::-1]))
        waiting = net.client.pair(*EPOCH_PAIR[::-1])
        assert waiting is not None
        now = net.client.block().time_ms
        assert waiting.allowed_from_ms == now + LOCAL.times.admin_delay_ms
        net.admin.send(net.calls.revoke_pair(pair.index))
        assert net.client.active_epoch(net.log_id) is None

    def test_a_log_says_operator_and_endpoints(self, net: Network) -> None:
        """Its id is known before it is opened."""
        assert net.client.log_operator(net.log_id) == net.admin.address
        net.admin.send(net.calls.set_endpoints(net.log_id, ["http://127.0.0.1:2"]))
        assert net.client.log_endpoints(net.log_id) == ("http://127.0.0.1:2",)
        upcoming = net.client.next_log_id(net.admin.address)
        assert net.client.log_operator(upcoming) == bytes(20)
        net.admin.send(net.calls.open_log([]))
        assert net.client.log_operator(upcoming) == net.admin.address


class TestDeployment:
    """Once, checked, and never over somebody else's."""

    def test_a_second_run_leaves_everything_alone(self, net: Network, tmp_path: Path) -> None:
        """Same addresses, no transaction."""
        path, sender = tmp_path / "deployment.json", net.sender()
        me = sender.address
        powers = Powers(me, me, me, me)
        made = deploy_once(net.rpc, sender, powers, path)
        head = net.client.head()
        assert deploy_once(net.rpc, sender, powers, path) == made == Deployment.load(path)
        client = ChainClient(net.rpc, made)
        fill(client, sender, {MODEL: MODEL_RECORD}, [EPOCH_PAIR])
        filled_at = net.client.head()
        fill(client, sender, {MODEL: MODEL_RECORD}, [EPOCH_PAIR])
        assert (net.client.head(), filled_at) == (filled_at, head + 2)

    def test_the_deployer_keeps_no_power_it_was_not_given(self, net: Network) -> None:
        """The administrator is another account: the deployer can do nothing any more."""
        sender, admin = net.sender(), net.sender()
        chief = admin.address
        deployment = deploy(net.rpc, sender, Powers(chief, chief, chief, chief))
        calls = Calls(deployment)
        for call in (calls.set_model(MODEL, MODEL_RECORD), calls.pause(1)):
            with pytest.raises(Reverted, match="AccessManagedUnauthorized"):
                sender.send(call)
            admin.send(call)
        grant = load("AccessManager").function("grantRole")
        data = grant.encode(role("guardian").id, sender.address, 0)
        with pytest.raises(Reverted, match="AccessManagerUnauthorizedAccount"):
            sender.send(Call("taking power", deployment.access_manager, data))

    def test_the_wrong_chain_is_named_with_both_ids(self, net: Network, tmp_path: Path) -> None:
        """And the file is not touched."""
        path = tmp_path / "deployment.json"
        fields = net.deployment.addresses() | {"block": 1, "chain_id": 1}
        other = Deployment(**fields)  # type: ignore[arg-type]
        other.save(path)
        powers = Powers(WALLET, WALLET, WALLET, WALLET)
        with pytest.raises(WrongChain, match=r"31337.*chain 1;"):
            deploy_once(net.rpc, net.sender(), powers, path, renew=True)
        assert Deployment.load(path) == other

    def test_a_chain_that_was_reset_is_deployed_anew_only_on_request(self, tmp_path: Path) -> None:
        """Silently it could hide that a ledger is gone."""
        path = tmp_path / "deployment.json"
        with _chain(tmp_path / "one.json") as rpc:
            first = Network(rpc).deployment
        first.save(path)
        with _chain(tmp_path / "two.json") as rpc:
            sender = funded_transactor(rpc)
            powers = Powers(*[sender.address] * 4)
            with pytest.raises(NotDeployed, match="deploy again"):
                deploy_once(rpc, sender, powers, path)
            renewed = deploy_once(rpc, sender, powers, path, renew=True)
            assert renewed != first
            ChainClient(rpc, renewed).check()

    def test_code_of_another_deployment_is_noticed(self, net: Network) -> None:
        """Right chain, code at every address, but not made for this Settlement."""
        swapped = net.deployment.addresses() | {
            "settlement": net.deployment.receipt_log,
            "chain_id": net.deployment.chain_id,
            "block": net.deployment.block,
        }
        with pytest.raises(NotDeployed):
            ChainClient(net.rpc, Deployment(**swapped)).check()  # type: ignore[arg-type]


def test_events_of_the_whole_network_are_decoded(net: Network) -> None:
    """An indexer sees deposits, the batch and payouts, in order and with raw addresses."""
    payer, node = net.payer(10 * TUSD), net.node(WALLET)
    net.serve(payer.address, node.address, TUSD, 10_000)
    net.settle(net.admin)
    node.send(net.calls.withdraw_credit())
    follower = Follower(net.rpc, LogReader.of(net.rpc, net.deployment), net.deployment.block)
    step = follower.poll()
    assert isinstance(step, Advance)
    names = [event.name for event in step.events]
    for name in ("ModelSet", "LogOpened", "EpochActivated", "Deposited", "NodeRegistered"):
        assert name in names
    settled, paid = step.events[-2:]
    assert (settled.contract, settled.name) == ("Settlement", "BatchSettled")
    assert settled.arguments["debited"] == TUSD
    assert settled.arguments["newRoot"] == net.tree.root()
    assert paid.arguments == {"node": node.address, "payout": WALLET, "amount": TUSD - 10_000}


def test_finality_lags_behind_the_head(net: Network) -> None:
    """And never below the first block."""
    head = net.client.head()
    assert ChainClient(net.rpc, net.deployment, finality_blocks=2).final_block() == head - 2
    assert ChainClient(net.rpc, net.deployment, finality_blocks=10**6).final_block() == 0


def test_a_block_the_endpoint_lacks_is_unavailable(net: Network) -> None:
    with pytest.raises(ChainUnavailable, match="has no block"):
        net.client.block(10**9)
