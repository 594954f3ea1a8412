"""A gateway's configuration: one file (TOML or JSON), and `PINAIVU_GATEWAY_…` in the environment.

    listen = "127.0.0.1:8080"
    p2p_listen = ["/ip4/127.0.0.1/tcp/4101"]
    database = "sqlite:////var/lib/pinaivu/gateway.db"
    batches_folder = "/var/lib/pinaivu/batches"
    gateway_key_file = "keys/gateway.hex"      # signs jobs; registered on chain
    peer_key_file = "keys/gateway-peer.hex"    # identity on the network, nothing else
    rpc_url = "http://127.0.0.1:8545"
    deployment_file = "deployment.json"

    [[logs]]                                   # one or more
    log_id = "0x…"
    url = "http://127.0.0.1:9000"              # optional: where the chain says, else
    coordinator = "/ip4/127.0.0.1/tcp/4001"    # the same, without /p2p/…

    [[models]]
    name = "smollm2-135m-instruct"
    tokenizer_file = "models/smollm2/tokenizer.json"
    chat_template_file = "models/smollm2/chat_template.jinja"

Relative paths are meant from the file's folder. A variable overrides the member of its name in
upper case, e.g. ``PINAIVU_GATEWAY_LISTEN``; lists and tables are given as JSON. This module is the
only one that reads the environment, and it opens no other file. ``all_logs = true`` in the place of
the logs means those that the chain knows at start; ``private_endpoints = true`` lets what is said
on chain lead into private networks, as on a local one.
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.log_lines import Format
from pinaivu.errors import Misconfigured

_PREFIX: Final = "PINAIVU_GATEWAY_"
MOST_LOGS: Final = 8
_Seconds = Annotated[float, Field(gt=0, le=3600)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Limits(_Part):
    """Sizes, times and numbers; the defaults suit a public gateway."""

    max_body_bytes: int = Field(default=1 << 20, ge=1024, le=4 << 20)
    max_in_flight: int = Field(default=256, ge=1)
    default_output_tokens: int = Field(default=1024, ge=1)
    attempts: int = Field(default=4, ge=1, le=64)
    job_deadline_s: _Seconds = 300
    submit_within_s: _Seconds = 5
    ready_within_s: _Seconds = 1
    patience_s: _Seconds = 15  # least time a node may be silent; more where it promised less
    after_cancel_s: _Seconds = 3
    heartbeat_s: _Seconds = 15  # between signs of life on a stream, and before it is begun without
    drain_s: Annotated[float, Field(ge=0, le=3600)] = 30  # for what runs when told to stop
    content_hours: int = Field(default=24, ge=0)  # prompts and answers on disk, for bundles


class LogConfig(_Part):
    """A log; the URL of its public server and where its coordinator is dialed, or as on chain."""

    log_id: Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")]
    url: str | None = None
    coordinator: str | None = None

    @property
    def id(self) -> bytes:
        """The log's id, 32 bytes."""
        return bytes.fromhex(self.log_id[2:])


class ModelFiles(_Part):
    """A model this gateway serves; the files must have the digest that the registry names."""

    name: str
    tokenizer_file: Path
    chat_template_file: Path


class Config(_Part):
    """Everything a gateway is told from outside."""

    listen: str = "127.0.0.1:8080"
    p2p_listen: list[str] = Field(min_length=1)
    p2p_announce: list[str] = []
    database: str
    batches_folder: Path = Path("batches")
    gateway_key_file: Path
    peer_key_file: Path
    rpc_url: str
    deployment_file: Path
    logs: list[LogConfig] = Field(default=[], max_length=MOST_LOGS)
    all_logs: bool = False
    private_endpoints: bool = False
    models: list[ModelFiles] = Field(min_length=1)
    limits: Limits = Limits()
    log_level: str = "INFO"
    log_format: Format = "text"
    metrics_listen: str | None = None
    cors_origins: list[str] = []


def load_config(path: Path, environment: Mapping[str, str]) -> Config:
    """Read file and environment; `Misconfigured` names what to change."""
    document = _parse(path)
    for name in Config.model_fields:
        given = environment.get(_PREFIX + name.upper())
        if given is not None:
            document[name] = _value(given)
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(step) for step in fault['loc'])}: {fault['msg']}"
            for fault in error.errors()
        )
        raise Misconfigured(f"{path}: {faults}") from error
    if bool(config.logs) == config.all_logs:
        raise Misconfigured(f"{path}: logs: name one or more, or set all_logs")
    if len({log.log_id for log in config.logs}) < len(config.logs):
        raise Misconfigured(f"{path} names a log twice")
    return _resolved(config, path.parent)


def _parse(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise Misconfigured(f"can't read the configuration {path}: {error.strerror}") from error
    except ValueError as error:
        raise Misconfigured(f"{path} is neither TOML nor (as .json) JSON: {error}") from error
    if not isinstance(document, dict):
        raise Misconfigured(f"{path} holds no table of settings")
    return document


def _value(given: str) -> object:
    """A variable's value: JSON where it is a list or table, else the text itself."""
    if not given.startswith(("[", "{")):
        return given
    try:
        return json.loads(given)
    except ValueError as error:
        raise Misconfigured(f"an environment variable holds no JSON: {given!r:.80}") from error


def _resolved(config: Config, folder: Path) -> Config:
    models = [
        model.model_copy(
            update={
                "tokenizer_file": folder / model.tokenizer_file,
                "chat_template_file": folder / model.chat_template_file,
            }
        )
        for model in config.models
    ]
    paths = ("batches_folder", "gateway_key_file", "peer_key_file", "deployment_file")
    return config.model_copy(
        update={name: folder / getattr(config, name) for name in paths} | {"models": models}
    )
