"""The local chain with everything on it that a network needs: contracts, registrations, money.

Repeating it is cheap: what the chain holds already is left alone. The chain begins in the past, so
that code and parameters are allowed through the same public delay as anywhere.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from pinaivu.bindings import sign_peer_binding
from pinaivu.chain.anvil import AnvilProcess, catch_up, find_anvil, fund
from pinaivu.chain.calls import Calls
from pinaivu.chain.client import ChainClient
from pinaivu.chain.deployer import LOCAL, Powers, deploy_once, fill
from pinaivu.chain.records import NO_LOG, ModelRecord
from pinaivu.chain.rpc import HttpRpc
from pinaivu.chain.transactor import Transactor
from pinaivu.codes import Role
from pinaivu.local.folder import MODEL, NODES, Folder
from pinaivu.messages import Log
from pinaivu.model_card import ModelCard
from pinaivu.typed_data import digest

DEPOSIT: Final = 100_000_000
RESERVE: Final = 10_000_000
RATIO_PPM: Final = 250_000
_GENESIS_AGE_S: Final = 2 * LOCAL.times.admin_delay_ms // 1000


class LocalChain:
    """The chain process and the parties' business with it."""

    def __init__(self, folder: Folder, port: int) -> None:
        self.folder = folder
        genesis = int(time.time()) - _GENESIS_AGE_S
        folder.chain_state.parent.mkdir(parents=True, exist_ok=True)
        binary = find_anvil(tree=Path(__file__).parents[2])
        self.process = AnvilProcess(folder.chain_state, port=port, genesis_s=genesis, binary=binary)
        self.rpc = HttpRpc(self.process.url)
        self.client: ChainClient

    def start(self) -> None:
        """Start the chain; it goes on where its state ends."""
        self.process.start()

    def sender(self, name: str) -> Transactor:
        """A named key's sender, with coin for gas."""
        key = self.folder.key(name)
        fund(self.rpc, key.address)
        return Transactor(self.rpc, self.process.chain_id, key)

    def prepare(self, measurement: bytes, parameters_digest: bytes) -> None:
        """Deploy and fill what is missing."""
        admin = self.sender("admin")
        simulator = self.folder.key("simulator").address
        powers = Powers(admin.address, admin.address, admin.address, simulator)
        deployment = deploy_once(self.rpc, admin, powers, self.folder.deployment, renew=True)
        self.client = ChainClient(self.rpc, deployment)
        card = ModelCard.from_json(self.folder.card.read_bytes())
        record = ModelRecord(
            card.fingerprint, card.tokenizer_digest, RATIO_PPM, card.context_tokens
        )
        fill(self.client, admin, {MODEL: record}, [(measurement, parameters_digest)])
        catch_up(self.rpc, time.time_ns() // 1_000_000)

    def await_allowed(
        self, measurement: bytes, parameters: bytes, say: Callable[[str], None]
    ) -> None:
        """Wait out the public delay of this code, where an earlier start broke off before it."""
        pair = self.client.pair(measurement, parameters)
        assert pair is not None
        left_s = pair.allowed_from_ms / 1000 - time.time()
        if left_s > 0:
            say(f"the chain allows this code and its parameters in {left_s:.0f} s")
            time.sleep(left_s + 1)

    def open_log(self, operator_name: str) -> bytes:
        """The id of an operator's first log, opened if it is not."""
        operator = self.sender(operator_name)
        name = Log(operator=operator.address, number=0)
        log_id = digest(self.client.deployment.domain, name)
        if self.client.next_log_id(operator.address) == log_id:
            operator.send(Calls(self.client.deployment).open_log(["http://127.0.0.1"]))
        return log_id

    def set_endpoints(self, operator: str, log_id: bytes, endpoints: Sequence[str]) -> None:
        """Publish where the log is served."""
        if self.client.log_endpoints(log_id) != tuple(endpoints):
            calls = Calls(self.client.deployment)
            self.sender(operator).send(calls.set_endpoints(log_id, endpoints))

    def register_parties(self, gateway_endpoints: Sequence[str]) -> None:
        """Register gateway and nodes, each by its own transaction."""
        calls, domain = Calls(self.client.deployment), self.client.deployment.domain
        gateway, peer = self.folder.key("gateway"), self.folder.key("gateway-peer")
        found = self.client.gateway(gateway.address)
        if found is None or found.endpoints != tuple(gateway_endpoints):
            binding = sign_peer_binding(domain, gateway.address, Role.GATEWAY, peer)
            call = calls.register_gateway(peer.point, list(gateway_endpoints), binding)
            self.sender("gateway").send(call)
        for name in NODES:
            node, peer = self.folder.key(name), self.folder.key(f"{name}-peer")
            if self.client.node(node.address) is None:
                payout = self.folder.key(f"{name}-payout").address
                binding = sign_peer_binding(domain, node.address, Role.NODE, peer)
                self.sender(name).send(calls.register_node(payout, peer.point, binding))

    def fund(self, log_id: bytes, payer_name: str, operator_name: str) -> None:
        """Give the payer play money, deposit it and assign it to the log; fill the reserve."""
        calls = Calls(self.client.deployment)
        payer = self.sender(payer_name)
        if self.client.payer(payer.address).log_id == NO_LOG:
            payer.send(calls.mint(payer.address, DEPOSIT))
            payer.send(calls.approve(DEPOSIT))
            payer.send(calls.deposit(DEPOSIT))
            payer.send(calls.assign(log_id))
        if self.client.log_state(log_id).reserve == 0:
            operator = self.sender(operator_name)
            operator.send(calls.mint(operator.address, RESERVE))
            operator.send(calls.approve(RESERVE))
            operator.send(calls.fund_reserve(log_id, RESERVE))
