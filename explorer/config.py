"""The explorer's configuration: one JSON file, named on the command line.

    {"log_url": "http://127.0.0.1:8081", "rpc": "http://127.0.0.1:8545",
     "deployment": "deployment.json", "log_id": "0x…", "database": "sqlite:///explorer.db",
     "port": 8501, "policy": "development"}

It decides whom is asked, never what counts as proven: keys and roots come from chain and log, and
everything they say is checked.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from pinaivu.encoding import from_hex
from pinaivu.errors import InvalidEncoding, Misconfigured

_Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where log, chain and database are, and where to serve the pages (127.0.0.1 only)."""

    log_url: str
    rpc: str
    deployment: str  # file with the contracts' addresses
    log_id: str  # 0x hex
    database: str  # SQLAlchemy URL
    port: _Port
    policy: Literal["development", "strict"] = "development"

    @property
    def log(self) -> bytes:
        """The log's id as bytes."""
        return from_hex(self.log_id, 32)


def load_config(path: Path) -> Config:
    """Read the file; `Misconfigured` says what is wrong with it."""
    try:
        config = msgspec.json.decode(path.read_bytes(), type=Config)
        from_hex(config.log_id, 32)
    except OSError as error:
        raise Misconfigured(f"the configuration {path} can't be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise Misconfigured(f"the configuration {path} is wrong: {error}") from error
    except InvalidEncoding as error:
        raise Misconfigured(f"the configuration {path} is wrong: log_id: {error}") from error
    return config
