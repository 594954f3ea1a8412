"""The folder a local network lives in: what lies where, and its keys."""

import os
from pathlib import Path
from typing import Final

from pinaivu.keyfiles import load_key
from pinaivu.keys import SecretKey

MODEL: Final = "smollm2-135m-instruct"
NODES: Final = ("node-1", "node-2", "node-3")


class Folder:
    """Paths and keys of one local network; keys are made when first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def key(self, name: str) -> SecretKey:
        """A named key, such as admin, operator, payer, gateway or node-1."""
        return load_key(self.key_path(name), os.urandom)

    def key_path(self, name: str) -> Path:
        """Where a named key lies."""
        return self.root / "keys" / f"{name}.key"

    def log(self, name: str) -> Path:
        """A process's log file."""
        path = self.root / "logs" / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def config(self, name: str) -> Path:
        """A service's configuration file."""
        path = self.root / "config" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def chain_state(self) -> Path:
        """The development chain's state."""
        return self.root / "chain" / "state.json"

    @property
    def deployment(self) -> Path:
        """The contracts' addresses."""
        return self.root / "deployment.json"

    @property
    def parameters(self) -> Path:
        """The coordinator's parameters."""
        return self.root / "parameters.json"

    @property
    def ports(self) -> Path:
        """Ports chosen at the first start."""
        return self.root / "ports.json"

    @property
    def model_files(self) -> Path:
        """Tokenizer, chat template and card of the model."""
        return self.root / "model"

    @property
    def card(self) -> Path:
        """The model card."""
        return self.model_files / "model_card.json"

    def database(self, name: str) -> str:
        """A service's database URL."""
        return f"sqlite:///{self.root / 'databases' / f'{name}.db'}"
