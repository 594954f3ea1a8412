"""The answer to one order: what the engine is asked, and what it said, counted and committed to.

    body = engine_body(order)
    answer = Answer(order)
    answer.take(event)
    answer.tokens             # so far, by this node's own tokenizer
    answer.segment()          # this node's part of the text

`engine_body` is the client's body with only what an engine has to be told differently. `Answer` is
pure: it neither asks nor sends. The engine's own usage report is compared, never relied upon.
"""

import json
from typing import Final

from node.checks import Order
from node.engines.spec import continued
from pinaivu.codes import Finish, JobKind
from pinaivu.commitments import response_commitment, response_digest, segment_commitment
from pinaivu.metering import Tolerance
from pinaivu.openai import finish_of, gather
from pinaivu.tokens import LateCounter

_NOT_FOR_ENGINES: Final = frozenset({"pinaivu", "max_completion_tokens"})
"""Said to the market, or said again as `max_tokens`."""

_NOT_FOR_CALLERS: Final = frozenset({"n_predict", "id_slot", "priority"})
"""An engine's own knobs: another token limit, another's slot, a place in the queue."""


def engine_body(order: Order) -> bytes:
    """The request to the engine: streaming, with usage, and at most the award's tokens.

    Nor more than the caller's limit leaves behind a text so far: of that, some may have been shown
    that was never acknowledged, and so is awarded again.
    """
    dropped = _NOT_FOR_ENGINES | _NOT_FOR_CALLERS
    body = {name: value for name, value in order.body.items() if name not in dropped}
    body["model"] = order.model.engine_name
    if order.request.kind == JobKind.EMBEDDING:
        return json.dumps(body).encode()
    share = order.award.max_output_tokens // order.request.choices
    body |= {
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": max(1, min(share, _left(order, share))),
    }
    if order.prefix:
        body = continued(body, order.prefix)
    return json.dumps(body).encode()


def _left(order: Order, share: int) -> int:
    """What the caller's own limit leaves for a choice; no less than `share` where there is none."""
    shown = order.model.tokenizer.count_output(order.prefix, order.request.kind)
    return order.request.tokens_per_choice(share + shown) - shown


class Answer:
    """Gathers one stream of events; with a prefix, the text goes on behind it."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._kind = order.request.kind
        self._gathered = gather(self._kind, order.request.choices, order.prefix)
        self._counter = LateCounter(order.model.tokenizer.output_counter(self._kind))
        self.begun = False
        """Whether anything has come that an acknowledgement could be for."""

    def take(self, event: bytes) -> None:
        """Add one event. Raises `BadResponse` for what is no chunk."""
        added = self._gathered.feed(event)
        if added:
            self.begun = True
            self._counter.feed(added)

    @property
    def tokens(self) -> int:
        """Output tokens so far; exact while text only grows at its end (`output_tokens` is)."""
        return self._counter.count

    def reaches(self, tokens: int) -> bool:
        """Whether there are so many; cheaper than asking how many."""
        return self._counter.reaches(tokens)

    @property
    def complete(self) -> bool:
        """Whether each choice has come to its end."""
        return self._gathered.complete

    @property
    def finish(self) -> Finish:
        """How the lowest choice ended."""
        return finish_of(self._gathered.finish_reason)

    def segment(self) -> bytes:
        """The text behind the prefix."""
        return self._gathered.text()[self._order.award.start_byte :]

    def segment_commitment(self) -> bytes:
        """The commitment to it."""
        return segment_commitment(self._order.salt_segment, self.segment())

    def response_commitment(self) -> bytes:
        """The commitment to the whole response, prefix included."""
        digest = response_digest(self._gathered.choices())
        return response_commitment(self._order.salt_response, digest)

    def output_tokens(self) -> int:
        """Tokens of this node's part of the text, at most what was awarded.

        Texts of several choices or of tool calls arrive interleaved; their order is the text's.
        """
        if self._gathered.append_only:
            found = self._counter.finish()
        else:
            text = self.segment().decode("utf-8")
            found = self._order.model.tokenizer.count_output(text, self._kind)
        return min(found, self._order.award.max_output_tokens)

    def usage_difference(self) -> str | None:
        """How the engine's report differs beyond tolerance; None if it agrees or is missing.

        A continued answer's prompt holds the text so far, so its count is no prompt count.
        """
        usage = self._gathered.usage
        if usage is None:
            return None
        rules = self._order.epoch.parameters
        tolerance = Tolerance(rules.tolerance_tokens, rules.tolerance_ppm)
        pairs = [("output", usage.completion_tokens, self.output_tokens())]
        if not self._order.prefix:
            pairs.append(("prompt", usage.prompt_tokens, self._order.prompt_tokens))
        return (
            "; ".join(
                f"{reported} {what} tokens by the engine, {counted} by the tokenizer"
                for what, reported, counted in pairs
                if reported is not None and tolerance.exceeded(reported, counted)
            )
            or None
        )
