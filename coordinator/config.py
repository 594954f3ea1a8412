"""The coordinator's configuration: one JSON file, named on the command line.

Nothing here decides anything a receipt depends on: rules, chain endpoint and keys come with the
epoch identity from boot, measured and attested. What is left is where to listen and store.
"""

from pathlib import Path

import msgspec

from pinaivu.errors import Misconfigured


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to listen, what to announce, where to store."""

    deployment: str  # file with the contracts' addresses
    log_id: str  # 0x hex
    database: str  # SQLAlchemy URL
    listen: list[str]  # multiaddrs for nodes and gateways
    http_host: str = "127.0.0.1"
    http_port: int = 8081
    model_cards: list[str] = []  # files; shown in bundles


def load_config(path: Path) -> Config:
    """Read the file; `Misconfigured` says what is wrong with it."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Config)
    except OSError as error:
        raise Misconfigured(f"the configuration {path} can't be read: {error}") from error
    except msgspec.DecodeError as error:
        raise Misconfigured(f"the configuration {path} is wrong: {error}") from error
