"""A whole network in small for the matrix: chain, log, gateway, a scripted node and a real one.

`node-1` runs llama.cpp with the small model, embeddings too; `node-2` is attached to a
`scripted_engine` process, under a model of its own whose template shows tools, images and thinking.
Where there is an environment with vLLM, `node-3` runs that with the small model.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from pinaivu.attestation.simulated import SIMULATED_MEASUREMENT
from pinaivu.chain.deployer import fill
from pinaivu.chain.records import ModelRecord
from pinaivu.encoding import to_hex
from pinaivu.local.folder import MODEL as REAL_MODEL
from pinaivu.local.folder import Folder
from pinaivu.local.network import Network, gguf_path
from pinaivu.local.operator import read_json
from pinaivu.local.payer import ensure_grant, new_api_key
from pinaivu.loopback import free_port
from pinaivu.manifest import local_development_parameters
from pinaivu.model_card import ModelCard, ModelFile, tokenizer_digest
from tests.conformance.cases import ENGINE_MODEL, MODEL
from tests.conformance.vllm_model import write_vllm_model
from tests.unit.tiny_tokenizer import tiny_tokenizer_json

VLLM_MODEL: Final = f"{REAL_MODEL}-f16"
CONTEXT: Final = 4096
TEMPLATE: Final = (
    "{% for tool in tools or [] %}<|begin|>tool {{ tool | tojson }}<|end|>{% endfor %}"
    "{% for message in messages %}<|begin|>{{ message.role }} "
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content or [] %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% for call in message.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}"
    "<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|begin|>assistant{% if enable_thinking %} think{% endif %}"
    "{% endif %}"
)


class Stage(Network):
    """The network, its scripted engine, and a key on it."""

    def __init__(self, folder: Folder, vllm_python: str | None = None) -> None:
        """`vllm_python`: the Python of an environment that vLLM is installed in."""
        super().__init__(folder, say=lambda _: None)
        self._vllm_python = vllm_python
        self._vllm_files = folder.root / "vllm-model"
        self.engine_url = f"http://127.0.0.1:{free_port()}"
        self.scripted_files = folder.root / "scripted-model"
        self.models[MODEL] = self.scripted_files
        self.key = ""

    def start(self) -> None:
        """Bring it up; ready when both models are on offer."""
        cards = {MODEL: write_model(self.scripted_files)}
        self._prepare_model()
        if self._vllm_python:
            self.models[VLLM_MODEL] = self._vllm_files
            cards[VLLM_MODEL] = write_vllm_model(
                gguf_path(), self.folder.model_files, self._vllm_files
            )
        self.chain.start()
        parameters = local_development_parameters(self.chain.process.url, finality_blocks=0)
        self.folder.parameters.write_bytes(parameters.to_jcs())
        self.chain.prepare(SIMULATED_MEASUREMENT, parameters.digest())
        records = {
            name: ModelRecord(card.fingerprint, card.tokenizer_digest, 250_000, CONTEXT)
            for name, card in cards.items()
        }
        fill(self.chain.client, self.chain.sender("admin"), records, [])
        self.chain.await_allowed(SIMULATED_MEASUREMENT, parameters.digest(), lambda _: None)
        (log,) = self.logs
        log.log_id = self.chain.open_log(log.operator)
        self.chain.set_endpoints(log.operator, log.log_id, [log.address, log.url])
        self.chain.fund(log.log_id, log.payer, log.operator)
        place = f"/ip4/127.0.0.1/tcp/{self.ports.gateway_p2p}"
        self.chain.register_parties([place, self.gateway_url])
        self.start_coordinator()
        self.start_submitter()
        self.start_gateway()
        self._start_engine()
        self._start("node-1", _real() | {"files": str(self.folder.model_files)})
        self._start("node-2", self._scripted())
        if self._vllm_python:
            self._start("node-3", self._vllm(self._vllm_python))
        ensure_grant(self.folder, self.chain.client, log.log_id, log.payer)
        self.key = new_api_key(self.folder, "conformance")
        self.children["coordinator"].wait_until(self._on_offer, within_s=180)

    def _start_engine(self) -> None:
        port = self.engine_url.rpartition(":")[2]
        child = self._child("scripted-engine", "tests.conformance.scripted_engine", "--port", port)
        child.start()
        child.wait_until(lambda: bool(read_json(f"{self.engine_url}/v1/models")), within_s=30)

    def _start(self, name: str, model: dict[str, Any]) -> None:
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
            "logs": [{"log_id": to_hex(self.log_id)}],
            "gateways": [to_hex(self.folder.key("gateway").address)],
            "models": [model],
        }
        path = self.folder.config(name)
        path.write_text(json.dumps(config), "utf-8")
        self._child(name, "node", "--config", str(path)).start()

    def _scripted(self) -> dict[str, Any]:
        return {
            "name": MODEL,
            "files": str(self.scripted_files),
            "price_out": 4_000_000,
            "measure": {"runs": 1, "tokens": 16, "sentences": 2, "features": False},
            "engine": {
                "kind": "attached",
                "url": self.engine_url,
                "engine_name": ENGINE_MODEL,
                "slots": 16,  # an attempt without a completion counts as open for two seconds
                "context_tokens": CONTEXT,
                "kinds": ["chat", "completion", "embedding"],
                "features": ["tools", "structured", "logprobs", "choices", "images", "reasoning"],
            },
        }

    def _vllm(self, python: str) -> dict[str, Any]:
        return {
            "name": VLLM_MODEL,
            "files": str(self._vllm_files),
            "price_out": 4_000_000,
            "measure": {"runs": 1, "tokens": 16, "sentences": 2},
            "engine": {
                "kind": "vllm",
                "directory": str(self._vllm_files),
                "python": python,
                "slots": 4,
                "context_tokens": 2048,
                # On CPUs the last one is the part of the machine's memory that it takes.
                "extra": [
                    *("--enforce-eager", "--dtype", "float32"),
                    *("--gpu-memory-utilization", "0.2"),
                ],
            },
        }

    def _on_offer(self) -> bool:
        for name, child in self.children.items():
            if name.startswith("node-"):
                child.require_running()
        found = read_json(f"{self.log_url}/market")["models"]
        return set(found) >= {REAL_MODEL, *self.models}

    def gateway_rows(self, query: str) -> list[Any]:
        """Rows of the gateway's database, which is only read."""
        path = self.folder.root / "databases" / "gateway.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
            return connection.execute(query).fetchall()

    def settlement(self, request_id: str) -> str | None:
        """How far a receipt is settled; None while there is none."""
        answer = httpx.get(
            f"{self.gateway_url}/v1/receipts/{request_id}",
            headers={"authorization": f"Bearer {self.key}"},
            timeout=30,
        )
        return answer.json()["settlement"]["state"] if answer.status_code == 200 else None

    def wrong_bodies(self) -> list[str]:
        """Requests that the scripted engine did not expect."""
        wrong: list[str] = httpx.get(f"{self.engine_url}/wrong", timeout=10).json()
        return wrong


def _real() -> dict[str, Any]:
    engine = {"kind": "llamacpp", "gguf": str(gguf_path()), "embeddings": True}
    return {
        "name": REAL_MODEL,
        "price_out": 4_000_000,
        "measure": {"runs": 1, "tokens": 16, "sentences": 2},
        "engine": engine,
    }


def write_model(folder: Path) -> ModelCard:
    """Tokenizer, template and card of the scripted model, whose weights are a name."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_tokenizer_json()
    (folder / "tokenizer.json").write_bytes(tokenizer)
    (folder / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    card = ModelCard(
        files=(ModelFile("scripted", bytes(32)),),
        revision="scripted",
        quantization="none",
        tokenizer_digest=tokenizer_digest(tokenizer, TEMPLATE),
        context_tokens=CONTEXT,
    )
    (folder / "model_card.json").write_bytes(card.to_json())
    return card


@contextmanager
def stage(root: Path, vllm_python: str | None = None) -> Iterator[Stage]:
    """A running stage in a folder."""
    made = Stage(Folder(root), vllm_python)
    try:
        made.start()
        yield made
    finally:
        made.stop()
