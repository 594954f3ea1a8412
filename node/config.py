"""The node's configuration: one JSON file, named on the command line.

    {
      "state": "state/node-1",
      "chain": {"rpc": "http://127.0.0.1:8545", "deployment": "deployment.json"},
      "logs": [{"log_id": "0x…"}],
      "gateways": ["0x…"],
      "models": [{
        "name": "smollm2-135m-instruct", "files": "models/smollm2", "price_out": 400000,
        "engine": {"kind": "llamacpp", "gguf": "models/smollm2/model.gguf", "slots": 2}
      }]
    }

Logs and gateways are looked up on chain by their ids; a log's `url` and, in its id's place, a
gateway's multiaddr with peer id take precedence. `"all_logs": true` in the place of `logs` means
those that the chain knows at start.
Paths are relative to the file. Everything is checked here, so that what runs holds valid values.
Secrets are not in it; keys lie in files of their own.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from node.engines import spec as engines
from node.engines.measure import Effort
from node.engines.spec import EngineSpec
from node.errors import BadConfig
from node.pricing import FixedPrice, IdleDiscount, Pricing
from pinaivu.codes import Feature

_FEATURES: Final = (
    "tools",
    "structured",
    "logprobs",
    "choices",
    "images",
    "reasoning",
    "continues",
)
_KINDS: Final = ("chat", "completion", "embedding")

MOST_LOGS: Final = 8
"""Each log gets a share of the slots and a control stream."""

Hex32 = Annotated[str, Meta(pattern=r"^0x[0-9a-f]{64}\Z")]
Gateway = Annotated[str, Meta(pattern=r"^(0x[0-9a-f]{40}|/.{1,255})\Z")]
Positive = Annotated[int, Meta(ge=1)]
Ppm = Annotated[int, Meta(ge=0, le=1_000_000)]
Model = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:/@+-]{1,128}\Z")]


class LlamaCpp(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="llamacpp"):
    """The llama.cpp server as a child process; `embeddings`: it serves these too."""

    gguf: str
    slots: Positive = 1
    context_tokens: Positive = 2048
    threads: Positive = 1
    embeddings: bool = False


class Vllm(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="vllm"):
    """VLLM as a child process, from the Python environment that `python` belongs to.

    `embeddings`: the model is one that embeds; `images`: it takes them.
    """

    directory: str
    python: str
    slots: Positive = 16
    context_tokens: Positive = 8192
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    embeddings: bool = False
    images: bool = False
    extra: tuple[str, ...] = ()


class Attached(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="attached"):
    """An OpenAI-compatible server that runs elsewhere.

    `kinds` of requests and `features` are named as in `_KINDS` and `_FEATURES`.
    `api_key_file` holds nothing but the key it asks for.
    """

    url: str
    engine_name: str
    slots: Positive
    context_tokens: Positive
    kinds: Annotated[tuple[str, ...], Meta(min_length=1)] = ("chat",)
    features: tuple[str, ...] = ()
    api_key_file: str | None = None
    health_path: str | None = None


class Measure(Struct, frozen=True, forbid_unknown_fields=True):
    """How much is measured at start-up (see `Effort`), and whether each feature is tried."""

    runs: Annotated[int, Meta(ge=1, le=20)] = 2
    tokens: Annotated[int, Meta(ge=16, le=1024)] = 32
    sentences: Annotated[int, Meta(ge=1, le=64)] = 8
    features: bool = True

    @property
    def effort(self) -> Effort:
        """The same, for who measures."""
        return Effort(self.runs, self.tokens, self.sentences)


class ModelConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One model on offer.

    `name` is its id in the registry, `files` the directory of tokenizer, template and card,
    `weights` the directory whose files are compared with the card at start-up, if given.
    `price_out` is in base units per million output tokens; `idle_discount_ppm` is taken off in
    live rounds when all slots are free. `explore` takes exploration jobs while the node is new to
    a log: they pay the lesser of its price and the regular one.
    """

    name: Model
    files: str
    price_out: Positive
    engine: LlamaCpp | Vllm | Attached
    weights: str | None = None
    idle_discount_ppm: Ppm = 0
    explore: bool = True
    measure: Measure = Measure()

    @property
    def pricing(self) -> Pricing:
        """What the model's bids follow."""
        return IdleDiscount(self.idle_discount_ppm) if self.idle_discount_ppm else FixedPrice()

    def offered(self, engine: Feature) -> Feature:
        """What an offer says, given what can be served with the engine."""
        return engine | Feature.EXPLORATION if self.explore else engine


class LogConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """A log to work for, and the URL of its public server; without one as the chain says."""

    log_id: Hex32
    url: str | None = None

    @property
    def id(self) -> bytes:
        """The log's id, 32 bytes."""
        return bytes.fromhex(self.log_id[2:])


class ChainConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The chain's endpoint, and the file with the contracts' addresses.

    `private_endpoints`: what parties publish on chain may lead into private networks, as on a
    local one; else a stranger could have the node knock at its owner's doors.
    """

    rpc: str
    deployment: str
    private_endpoints: bool = False


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything a node is told. `base` is the directory that paths are relative to."""

    state: str
    chain: ChainConfig
    logs: Annotated[tuple[LogConfig, ...], Meta(max_length=MOST_LOGS)] = ()
    all_logs: bool = False
    gateways: tuple[Gateway, ...] = ()
    all_gateways: bool = False
    models: Annotated[tuple[ModelConfig, ...], Meta(min_length=1)]
    database: str | None = None
    node_key: str | None = None
    peer_key: str | None = None
    drain_s: Annotated[float, Meta(ge=0, le=600)] = 20.0
    base: str = ""

    def path(self, text: str) -> Path:
        """A path of the file, absolute."""
        return (Path(self.base) / text).absolute()

    @property
    def state_path(self) -> Path:
        """Where keys, database, batches and logs of the engine are kept."""
        return self.path(self.state)

    @property
    def batches_path(self) -> Path:
        """Where signed batches with receipts of this node are kept, by log."""
        return self.state_path / "batches"

    @property
    def node_key_path(self) -> Path:
        """The signing key's file."""
        return self.path(self.node_key) if self.node_key else self.state_path / "node.key"

    @property
    def peer_key_path(self) -> Path:
        """The peer key's file."""
        return self.path(self.peer_key) if self.peer_key else self.state_path / "peer.key"

    @property
    def database_url(self) -> str:
        """The journal's database; SQLite in the state directory by default."""
        return self.database or f"sqlite:///{self.state_path / 'node.db'}"


def load_config(path: Path) -> Config:
    """Read the file; `BadConfig` says what is wrong with it, and where."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadConfig(f"the configuration {path} can't be read: {error.strerror}") from error
    try:
        config = msgspec.json.decode(raw, type=Config)
    except msgspec.DecodeError as error:
        raise BadConfig(f"the configuration {path} is wrong: {error}") from error
    config = msgspec.structs.replace(config, base=str(path.absolute().parent))
    if bool(config.logs) == config.all_logs:
        raise BadConfig(
            f"the configuration {path} is wrong: name logs or set `all_logs`, one of them - at"
            " `$.logs`"
        )
    if not (config.gateways or config.all_gateways):
        raise BadConfig(
            f"the configuration {path} is wrong: name gateways or set `all_gateways` - at"
            " `$.gateways`"
        )
    _require_distinct(path, "log", [log.log_id for log in config.logs])
    _require_distinct(path, "model", [model.name for model in config.models])
    _require_distinct(path, "gateway", list(config.gateways))
    for model in config.models:
        if isinstance(model.engine, Attached):
            _features(model.engine)
    return config


def engine_spec(config: Config, model: ModelConfig, environment: Mapping[str, str]) -> EngineSpec:
    """The engine of a model; a child gets `environment` (see `child_environment`) and no more.

    Raises `BadConfig` for a key file that can't be read.
    """
    engine = model.engine
    if isinstance(engine, LlamaCpp):
        return engines.llamacpp(
            config.path(engine.gguf),
            model.name,
            env=environment,
            slots=engine.slots,
            context_tokens=engine.context_tokens,
            threads=engine.threads,
            embeddings=engine.embeddings,
        )
    if isinstance(engine, Vllm):
        return engines.vllm(
            config.path(engine.directory),
            model.name,
            python=engine.python,
            env=environment,
            slots=engine.slots,
            context_tokens=engine.context_tokens,
            tool_parser=engine.tool_parser,
            reasoning_parser=engine.reasoning_parser,
            embeddings=engine.embeddings,
            images=engine.images,
            extra=engine.extra,
        )
    return engines.attached(
        engine.url,
        engine.engine_name,
        slots=engine.slots,
        context_tokens=engine.context_tokens,
        features=_features(engine),
        api_key=_read_key(config, engine.api_key_file),
        health_path=engine.health_path,
    )


def _read_key(config: Config, name: str | None) -> str | None:
    if name is None:
        return None
    try:
        return config.path(name).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"the engine's key file {name} can't be read: {error}") from error


def _features(engine: Attached) -> Feature:
    features = Feature(0)
    for what, known, names in (
        ("kind", _KINDS, engine.kinds),
        ("feature", _FEATURES, engine.features),
    ):
        for name in names:
            if name not in known:
                raise BadConfig(f"no {what} {name!r} of an engine; there are {', '.join(known)}")
            features |= Feature[f"KIND_{name}".upper() if what == "kind" else name.upper()]
    return features


def _require_distinct(path: Path, what: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise BadConfig(f"the configuration {path} names {what} {name} twice")
