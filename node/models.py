"""A model as a node serves it: the registry's word on it, its tokenizer, its engine, its price.

`load_files` reads tokenizer, chat template and card and checks them against each other and against
the model registry. That the engine computes with the weights on the card is not proven by this.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.engines.errors import EngineDown
from node.engines.measure import EnginePromise
from node.engines.supervisor import Supervisor
from node.errors import WrongModel
from node.ports import Engine
from node.pricing import Pricing
from node.slots import Slots
from pinaivu.chain.records import ModelRecord
from pinaivu.codes import Feature, JobKind
from pinaivu.errors import InvalidEncoding
from pinaivu.model_card import ModelCard
from pinaivu.tokens import Tokenizer

SERVED: Final = (
    Feature.KIND_CHAT
    | Feature.KIND_COMPLETION
    | Feature.KIND_EMBEDDING
    | Feature.TOOLS
    | Feature.STRUCTURED
    | Feature.LOGPROBS
    | Feature.CHOICES
    | Feature.IMAGES
    | Feature.REASONING
    | Feature.CONTINUES
)
"""What this node can serve if its engine can: what it can count by the model's own files."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's tokenizer and card, known to belong together."""

    tokenizer: Tokenizer
    card: ModelCard


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """One model on offer. `name` is its id in the market, `engine_name` what its engine calls it.

    `price_out` is the standing price, base units per million output tokens; `ignored` see
    `EngineSpec`.
    """

    name: str
    engine_name: str
    record: ModelRecord
    tokenizer: Tokenizer
    engine: Engine
    features: Feature
    context_tokens: int
    promise: EnginePromise
    price_out: int
    pricing: Pricing
    slots: Slots
    ignored: frozenset[str] = frozenset()


class SupervisedEngine:
    """`Engine` on a supervisor, whichever process it has at the moment."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    @property
    def ready(self) -> bool:
        """Whether the supervisor has an engine up."""
        try:
            self._supervisor.client  # noqa: B018 - asking is what raises
        except EngineDown:
            return False
        return True

    def stream(
        self, kind: JobKind, body: bytes
    ) -> AbstractAsyncContextManager[AsyncIterator[list[bytes]]]:
        """See `Engine.stream`; also raises `EngineDown`."""
        return self._supervisor.client.stream(kind, body)


def load_files(directory: Path) -> ModelFiles:
    """Read `tokenizer.json`, `chat_template.jinja` and `model_card.json` of a directory.

    Raises `WrongModel` when one is missing or no such file, or they don't belong together.
    """
    try:
        tokenizer_json = (directory / "tokenizer.json").read_bytes()
        template = (directory / "chat_template.jinja").read_text(encoding="utf-8")
        card = ModelCard.from_json((directory / "model_card.json").read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise WrongModel(
            f"the model files in {directory} can't be read: {error}; make them from the model with"
            " `python -m node.engines.gguf_tokenizer`"
        ) from error
    except InvalidEncoding as error:
        raise WrongModel(f"{directory / 'model_card.json'}: {error}") from error
    tokenizer = Tokenizer(tokenizer_json, template)
    if tokenizer.digest != card.tokenizer_digest:
        raise WrongModel(
            f"tokenizer and chat template in {directory} (0x{tokenizer.digest.hex()}) are not those"
            f" of the model card (0x{card.tokenizer_digest.hex()}); fetch the card's own"
        )
    return ModelFiles(tokenizer, card)


def check_registered(name: str, files: ModelFiles, record: ModelRecord | None) -> ModelRecord:
    """The registry's record, if it names this card; else `WrongModel`."""
    if record is None:
        raise WrongModel(
            f"model {name!r} is not in the chain's model registry; check the model's name in the"
            " configuration, or have the registrar add it"
        )
    if record.tokenizer_digest != files.card.tokenizer_digest:
        raise WrongModel(f"the registry pins another tokenizer for {name!r}: fetch its files anew")
    if record.fingerprint != files.card.fingerprint:
        raise WrongModel(
            f"the registry's fingerprint of {name!r} is 0x{record.fingerprint.hex()}, the model"
            f" card's is 0x{files.card.fingerprint.hex()}: fetch the registered files"
        )
    return record
