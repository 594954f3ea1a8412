"""A request body, judged: what it asks of the engine, and its own terms for the market.

The bytes stay as they came, since the node gets exactly those. The member `pinaivu` is optional:

    {"max_price_in", "max_price_out", "max_cost_units", "value_of_time",
     "auction": "live" | "standing", "allow": ["0x…"], "deny": ["0x…"], "fingerprint": "0x…",
     "receipt": true}

Prices are base units per million tokens, amounts base units, the value of time base units per
second of waiting. `receipt` asks for a summary of the receipt in the answer itself.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.errors import ApiError, from_parameter
from gateway.parameters import check_parameters
from gateway.ports import ServedModel, Standing
from pinaivu.codes import JobKind
from pinaivu.commitments import request_digest
from pinaivu.encoding import InvalidParameter, parse_json
from pinaivu.openai import Request, read_request, require_inline_images
from pinaivu.terms import Terms

COMPLETION_TOKENS: Final = 16
"""Output tokens of a completion that names no limit, as OpenAI and vLLM have it."""
_MILLION: Final = 10**6
_PROMPTS: Final = {
    JobKind.CHAT: "messages",
    JobKind.COMPLETION: "prompt",
    JobKind.EMBEDDING: "input",
}


class Demand(Struct, frozen=True, kw_only=True):
    """A valid request: body as it came and as parsed, its terms, and what it may use.

    `digest` is the request digest, made where the body is read: of a long one it takes a while.
    """

    raw: bytes
    body: dict[str, Any]
    digest: bytes
    request: Request
    terms: Terms
    model: ServedModel
    prompt_tokens: int
    max_output_tokens: int

    @property
    def streams(self) -> bool:
        """Whether the client wants server-sent events."""
        return bool(self.request.stream)

    @property
    def wants_usage(self) -> bool:
        """Whether the client wants a last chunk with token counts."""
        options = self.request.stream_options
        return bool(options and options.include_usage)


def read_demand(
    raw: bytes,
    models: Mapping[str, ServedModel],
    *,
    default_output_tokens: int,
    kind: JobKind = JobKind.CHAT,
) -> Demand:
    """Judge a request's body. Counting the prompt takes a while for long ones."""
    try:
        body = parse_json(raw)
        request = read_request(kind, body)
        assert isinstance(body, dict)
        check_parameters(kind, body)
        require_inline_images(request)
        model = _model(request.model, models)
        prompt_tokens = model.tokenizer.count_prompt(body, kind)
        terms = _terms(request.pinaivu)
        room = (model.context_tokens - prompt_tokens) // request.choices
        usual = COMPLETION_TOKENS if kind == JobKind.COMPLETION else default_output_tokens
        default = max(1, min(usual, room))
        output_tokens = request.max_output_tokens(default)
        _require_room(request, model, prompt_tokens, default)
    except InvalidParameter as error:
        raise from_parameter(error) from error
    return Demand(
        raw=raw,
        body=body,
        digest=request_digest(body),
        request=request,
        terms=terms,
        model=model,
        prompt_tokens=prompt_tokens,
        max_output_tokens=output_tokens,
    )


def limit_below(standing: Standing, demand: Demand) -> str | None:
    """The caller's own limit that the cheapest standing offer breaks; None where it is another's.

    A limit on cost is named last: with the others kept, it is what is left of the caller's.
    """
    terms, cheapest = demand.terms, standing.price_out.cheapest
    lowest = {
        "max_price_out": cheapest,
        "max_price_in": cheapest * demand.model.ratio_ppm // _MILLION,
    }
    for name, price in lowest.items():
        limit = getattr(terms, name)
        if limit is not None and limit < price:
            return f"pinaivu.{name}"
    return "pinaivu.max_cost_units" if terms.max_cost_units is not None else None


def _model(name: str, models: Mapping[str, ServedModel]) -> ServedModel:
    found = models.get(name)
    if found is None:
        raise ApiError(
            404,
            "model_not_found",
            f"The model {name!r} is not served here; GET /v1/models lists those that are.",
            param="model",
        )
    return found


def _terms(raw: dict[str, object] | None) -> Terms:
    try:
        return msgspec.convert(raw or {}, Terms)
    except msgspec.ValidationError as error:
        raise InvalidParameter("pinaivu", str(error)) from error


def _require_room(request: Request, model: ServedModel, prompt: int, default: int) -> None:
    """Prompt and output share the model's context, all prompts and choices of a request together.

    That is what makes an offer eligible for a job (types.md, section 3).
    """
    wanted = request.max_output_tokens(default)
    if prompt + wanted > model.context_tokens:
        name = _PROMPTS[request.kind]
        raise ApiError(
            400,
            "context_length_exceeded",
            f"{model.name} has a context of {model.context_tokens} tokens; {name} has {prompt} and"
            f" up to {wanted} are asked for; shorten it, lower max_tokens or send it in parts.",
            param=name if prompt >= model.context_tokens or not wanted else "max_tokens",
        )
