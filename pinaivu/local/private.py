"""A private gateway: on its user's machine, paid by its user's wallet, with a key of its own.

Whoever runs it needs to trust no gateway: nobody else reads the prompts on this side of the node,
counts the tokens or spends the grant. `prepare` makes what is missing and leaves what is there, so
that it may be run as often as one likes: keys, the registration on chain, the grant, an API key,
the configuration. It serves on the loopback address only.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from pinaivu.bindings import sign_peer_binding
from pinaivu.chain.calls import Calls
from pinaivu.chain.client import ChainClient
from pinaivu.chain.records import NO_LOG
from pinaivu.chain.roles import LOCAL_CHAINS
from pinaivu.chain.transactor import Transactor
from pinaivu.codes import Role
from pinaivu.encoding import to_hex
from pinaivu.errors import Misconfigured
from pinaivu.grants import Caps, sign_grant
from pinaivu.keyfiles import load_key, write_private
from pinaivu.keys import SecretKey, checksum
from pinaivu.local.children import Child
from pinaivu.local.operator import read_json
from pinaivu.local.ports import keep, require_free
from pinaivu.messages import GatewayRegistration
from pinaivu.store.database import Database, open_database
from pinaivu.store.gateway_keys import add_grant, create_key, key_of_secret, list_grants
from pinaivu.typed_data import Signed

_REGISTRATION_MS: Final = 600_000
_RENEW_MS: Final = 86_400_000
"""A grant with less than a day left is signed anew."""

Say = Callable[[str], None]


class PrivatePorts(Struct, frozen=True, forbid_unknown_fields=True):
    """TCP ports of a private gateway, kept from its first start on."""

    http: int
    p2p: int


class Terms(Struct, frozen=True, kw_only=True):
    """What a private gateway is told. `models` maps names to folders with their tokenizer files.

    `p2p_listen` and `p2p_announce` are multiaddrs: where it listens for nodes, and what the chain
    tells them; loopback on a development chain where both are empty.
    """

    state: Path
    rpc_url: str
    deployment: Path
    models: Mapping[str, Path]
    caps: Caps = Caps()
    listen: str = ""
    p2p_listen: str = ""
    p2p_announce: str = ""


def require_loopback(listen: str) -> None:
    """Raise `Misconfigured` unless ``host:port`` is reached from this machine alone."""
    host = listen.rpartition(":")[0].strip("[]")
    try:
        private = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        private = False
    if not private:
        raise Misconfigured(
            f"a private gateway listens on this machine alone, not on {listen!r}: whoever reaches"
            " it spends your money. For others' use run an operator's gateway"
            " (docs/gateway-operator.md)"
        )


class PrivateGateway:
    """One private gateway; `client` reads the chain that `terms` name."""

    def __init__(self, terms: Terms, client: ChainClient, wallet: SecretKey, say: Say) -> None:
        self._terms = terms
        self._client = client
        self._wallet = wallet
        self._say = say
        self._domain = client.deployment.domain
        self._development = client.deployment.chain_id in LOCAL_CHAINS
        terms.state.mkdir(parents=True, exist_ok=True)
        self._ports = keep(terms.state / "ports.json", PrivatePorts)
        self.listen = terms.listen or f"127.0.0.1:{self._ports.http}"
        require_loopback(self.listen)
        self.key = load_key(self._key_path("gateway"), os.urandom)
        self._peer = load_key(self._key_path("gateway-peer"), os.urandom)
        self._child: Child | None = None

    @property
    def base_url(self) -> str:
        """What an SDK takes as its base URL."""
        return f"http://{self.listen}/v1"

    def prepare(self) -> str:
        """Make what is missing; the API key. `Misconfigured` says what only the user can do."""
        log_id = self._log()
        self._register()
        database = open_database(self._database, "gateway")
        try:
            self._grant(database, log_id)
            secret = self._api_key(database)
        finally:
            database.close()
        self._configure(log_id)
        return secret

    def start(self, *, within_s: float = 60.0) -> None:
        """Start serving; returns once it answers, `ChildFailed` with its last words otherwise."""
        if not self._terms.listen:
            require_free(self._ports, self._terms.state / "ports.json")
        command = [sys.executable, "-m", "gateway", "--config", str(self._config)]
        self._child = Child("gateway", command, self._terms.state / "gateway.log")
        self._child.start()
        self._child.wait_until(lambda: bool(self.health()), within_s=within_s)

    def health(self) -> dict[str, Any]:
        """What it says of itself; a `TransportFailure` while it doesn't serve."""
        found: dict[str, Any] = read_json(f"http://{self.listen}/healthz")
        return found

    def require_running(self) -> None:
        """Raise `ChildFailed` with its last words where it has ended."""
        assert self._child is not None
        self._child.require_running()

    def stop(self) -> None:
        """End it."""
        if self._child is not None:
            self._child.stop()

    @property
    def _database(self) -> str:
        return f"sqlite:///{(self._terms.state / 'gateway.db').absolute()}"

    @property
    def _config(self) -> Path:
        return self._terms.state / "gateway.json"

    def _key_path(self, name: str) -> Path:
        return self._terms.state / "keys" / f"{name}.key"

    def _log(self) -> bytes:
        """The log that the wallet's balance is assigned to: where jobs go, and what debits it."""
        wallet = self._client.payer(self._wallet.address)
        who = checksum(self._wallet.address)
        if not wallet.spendable:
            raise Misconfigured(
                f"wallet {who} has nothing deposited to pay with: `pinaivu wallet deposit AMOUNT`"
                " with this --key, first"
            )
        if wallet.log_id == NO_LOG:
            raise Misconfigured(
                f"wallet {who} is assigned to no log: `pinaivu wallet assign LOG_ID` with this"
                " --key, first"
            )
        if not self._client.log_endpoints(wallet.log_id):
            raise Misconfigured(f"log {to_hex(wallet.log_id)} publishes no place to be found at")
        self._say(f"pays from {who}, at log {to_hex(wallet.log_id)}")
        return wallet.log_id

    def _endpoints(self) -> tuple[str, str]:
        """Where nodes are listened for, and what the chain tells them."""
        listen, announce = self._terms.p2p_listen, self._terms.p2p_announce
        if not listen and not announce and self._development:
            listen = announce = f"/ip4/127.0.0.1/tcp/{self._ports.p2p}"
        if not announce:
            raise Misconfigured(
                "nodes dial a gateway, so they need an address that leads here: forward a port of"
                " your router and name it with --p2p-announce /ip4/ADDRESS/tcp/PORT"
            )
        return listen or f"/ip4/0.0.0.0/tcp/{self._ports.p2p}", announce

    def _register(self) -> None:
        """The gateway's entry on chain, by its own signature; the wallet pays the gas."""
        _, announce = self._endpoints()
        found = self._client.gateway(self.key.address)
        peer = self._peer.point
        if found and (found.endpoints, found.peer_point) == ((announce,), peer):
            return
        registration = GatewayRegistration(
            gateway=self.key.address,
            peer_x=peer[:32],
            peer_y=peer[32:],
            nonce=self._client.registration_nonce("gateway_registry", self.key.address),
            deadline_ms=self._client.block().time_ms + _REGISTRATION_MS,
            endpoints=(announce,),
        )
        signed = Signed.by(self.key, self._domain, registration)
        binding = sign_peer_binding(self._domain, self.key.address, Role.GATEWAY, self._peer)
        call = Calls(self._client.deployment).register_gateway_by_signature(signed, binding)
        sender = Transactor(self._client.rpc, self._client.deployment.chain_id, self._wallet)
        sender.send(call)
        self._say(f"registered gateway {checksum(self.key.address)} at {announce}")

    def _grant(self, database: Database, log_id: bytes) -> None:
        """The wallet's grant to this gateway; signed anew where none of these terms is valid."""
        epoch = self._client.payer(self._wallet.address).grant_epoch
        now_ms, caps = time.time_ns() // 1_000_000, self._terms.caps
        wanted = (log_id, self._wallet.address, self.key.address, epoch)
        for known in list_grants(database):
            held = known.message
            same = (held.log_id, held.payer, held.gateway, held.grant_epoch) == wanted
            if same and caps.of(held) and now_ms + _RENEW_MS < held.not_after_ms:
                return
        signed = sign_grant(
            self._wallet,
            self._domain,
            log_id,
            self.key.address,
            epoch,
            caps,
            now_ms=now_ms,
            salt=os.urandom(32),
        )
        add_grant(database, self._domain, signed, now_ms)
        self._say(f"granted itself up to {caps.per_day} base units a day, {caps.total} in all")

    def _api_key(self, database: Database) -> str:
        """The one key of this gateway; kept beside the others, readable by its owner alone."""
        path = self._terms.state / "keys" / "api-key"
        if path.exists():
            secret = path.read_text("ascii").strip()
            found = key_of_secret(database, secret)
            if found and not found.revoked_ms and found.payer == self._wallet.address:
                return secret
        made = create_key(
            database,
            payer=self._wallet.address,
            label="private",
            random=os.urandom,
            now_ms=time.time_ns() // 1_000_000,
        )
        write_private(path, made.secret)
        return made.secret

    def _configure(self, log_id: bytes) -> None:
        listen, announce = self._endpoints()
        config = {
            "listen": self.listen,
            "p2p_listen": [listen],
            "p2p_announce": [announce],
            "database": self._database,
            "batches_folder": "batches",
            "gateway_key_file": "keys/gateway.key",
            "peer_key_file": "keys/gateway-peer.key",
            "rpc_url": self._terms.rpc_url,
            "deployment_file": str(self._terms.deployment.absolute()),
            "logs": [{"log_id": to_hex(log_id)}],
            "private_endpoints": self._development,
            "models": [_model(name, files) for name, files in self._terms.models.items()],
        }
        self._config.write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def parse_models(given: Sequence[str]) -> dict[str, Path]:
    """``NAME=FOLDER`` texts; `Misconfigured` for others."""
    models = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise Misconfigured(f"{text!r} is no NAME=FOLDER of a model's tokenizer files")
        models[name] = Path(folder)
    return models


def _model(name: str, files: Path) -> dict[str, str]:
    folder = files.absolute()
    return {
        "name": name,
        "tokenizer_file": str(folder / "tokenizer.json"),
        "chat_template_file": str(folder / "chat_template.jinja"),
    }
