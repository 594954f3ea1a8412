"""The processes of the gateway bench: our network on the scripted engine, and a LiteLLM proxy.

Ours is what `pinaivu up` starts (anvil, coordinator, submitter, gateway, three nodes; attestation
SIMULATED, play money), only that the nodes are attached to the bench's engine and offer more slots.
LiteLLM runs from an environment of its own, made at the first run from `requirements/litellm.lock`,
with one worker and the settings that its documentation recommends for production. It gets an
environment of a few variables and nothing of ours.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from bench.gateway_usage import Usage
from pinaivu.local.children import Child
from pinaivu.local.folder import MODEL, NODES, Folder
from pinaivu.local.network import Network
from pinaivu.local.operator import answers
from pinaivu.local.payer import ensure_grant, new_api_key
from pinaivu.loopback import free_port

TREE: Final = Path(__file__).parents[1]
SLOTS: Final = 16
_LITELLM_KEY: Final = "sk-bench"
_LITELLM_ENVIRONMENT: Final = {
    "LITELLM_LOG": "ERROR",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_MASTER_KEY": _LITELLM_KEY,
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}
Say = Callable[[str], None]


class EngineNetwork(Network):
    """A local network whose nodes are attached to one engine."""

    engine_port: int
    slots: int

    def _engine(self, slots: int) -> dict[str, Any]:  # noqa: ARG002 - one engine for all of them
        return {
            "kind": "attached",
            "url": f"http://127.0.0.1:{self.engine_port}",
            "engine_name": MODEL,
            "slots": self.slots,
            "context_tokens": 8192,
            "features": [],
        }


class Stage:
    """Everything that runs: ports and keys of the three doors, and whose CPU is whose."""

    def __init__(self, network: EngineNetwork, engine: Child, litellm: Child | None) -> None:
        self.network = network
        self.doors: dict[str, tuple[int, str]] = {}
        self.pids: dict[str, int] = {"engine": engine.pid, "client": os.getpid()}
        self.pids |= {name: child.pid for name, child in network.children.items()}
        self.pids["chain"] = network.chain.process.pid or 0
        if litellm:
            self.pids["litellm"] = litellm.pid

    def usage(self) -> Usage:
        """CPU and memory of each process now; one that has ended fails the bench."""
        return Usage.of(self.pids)


@contextmanager
def stage(
    folder: Path,
    say: Say,
    *,
    litellm: bool = True,
    slots: int = SLOTS,
    home: Callable[[Path], Folder] = Folder,
) -> Iterator[Stage]:
    """Start everything, each part ready; end everything by process id.

    `home` says where the network keeps what, given its root.
    """
    with ExitStack() as stack:
        engine_port = free_port()
        command = [sys.executable, "-m", "bench.gateway_scripted_engine", "--model", MODEL]
        engine = _start(stack, "engine", [*command, "--port", str(engine_port)], folder)
        engine.wait_until(lambda: answers(f"http://127.0.0.1:{engine_port}/health"), within_s=30)
        network = EngineNetwork(home(folder / "network"), say)
        network.engine_port, network.slots = engine_port, slots
        stack.callback(network.stop)
        network.start()
        proxy, proxy_port = None, 0
        if litellm:
            proxy, proxy_port = start_litellm(stack, engine_port, folder, say)
        made = Stage(network, engine, proxy)
        ensure_grant(network.folder, network.chain.client, network.log_id)
        ours = (network.ports.gateway_http, new_api_key(network.folder, "bench"))
        made.doors = {"direct": (engine_port, "none"), "standing": ours, "live": ours}
        if proxy:
            made.doors["litellm"] = (proxy_port, _LITELLM_KEY)
        yield made


def start_litellm(stack: ExitStack, engine_port: int, folder: Path, say: Say) -> tuple[Child, int]:
    """The proxy, ready, and its port."""
    program = install_litellm(say)
    port, home = free_port(), folder / "litellm"
    home.mkdir(parents=True)
    config = home / "config.yaml"
    config.write_text(json.dumps(_litellm_config(engine_port)), "utf-8")  # JSON is YAML
    say("LiteLLM proxy: one worker, production settings, no database")
    kept = {"PATH": f"{program.parent}:/usr/bin:/bin", "HOME": str(home)} | _LITELLM_ENVIRONMENT
    command = ["env", "-i", *(f"{name}={value}" for name, value in kept.items()), str(program)]
    options = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    child = _start(stack, "litellm", [*command, *options], folder)
    url = f"http://127.0.0.1:{port}/health/liveliness"
    child.wait_until(lambda: answers(url), within_s=120)
    return child, port


def _litellm_config(engine_port: int) -> dict[str, Any]:
    """As https://docs.litellm.ai/docs/proxy/prod has it, as far as it isn't about databases."""
    engine = {"model": f"openai/{MODEL}", "api_base": f"http://127.0.0.1:{engine_port}/v1"}
    return {
        "model_list": [{"model_name": MODEL, "litellm_params": engine | {"api_key": "none"}}],
        "general_settings": {
            "master_key": "os.environ/LITELLM_MASTER_KEY",
            "proxy_batch_write_at": 60,
            "disable_spend_logs": True,
            "disable_error_logs": True,
        },
        "litellm_settings": {"request_timeout": 600, "set_verbose": False, "telemetry": False},
    }


def install_litellm(say: Say) -> Path:
    """Its program, in an environment that holds what the lock names, and nothing else."""
    lock, folder = TREE / "requirements" / "litellm.lock", TREE / ".venv-litellm"
    program, stamp = folder / "bin" / "litellm", folder / ".locked"
    if stamp.exists() and stamp.read_bytes() == lock.read_bytes():
        return program
    began = time.monotonic()
    packages = lock.read_text("utf-8").count("==")
    say(f"LiteLLM: installing {packages} locked packages into .venv-litellm (about 600 MB)")
    if not folder.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)  # noqa: S603
    uv = [str(TREE / ".venv" / "bin" / "uv"), "pip", "sync", "-q", "--require-hashes", str(lock)]
    subprocess.run(uv, check=True, env=os.environ | {"VIRTUAL_ENV": str(folder)})  # noqa: S603
    stamp.write_bytes(lock.read_bytes())
    say(f"LiteLLM: installed in {time.monotonic() - began:.0f} s")
    return program


def _start(stack: ExitStack, name: str, command: list[str], folder: Path) -> Child:
    child = Child(name, command, folder / f"{name}.log")
    child.start()
    stack.callback(child.stop)
    return child


NAMES: Final = ("gateway", "coordinator", *NODES, "litellm", "engine", "client")
"""Whose CPU the table shows."""
