"""V9: the token counts, recounted from the holder's copies with the model's own tokenizer."""

from collections.abc import Mapping
from typing import Any

from pinaivu.codes import JobKind, Reason
from pinaivu.errors import InvalidEncoding
from pinaivu.metering import Tolerance
from pinaivu.openai import canonical_choices, text
from pinaivu.verify.case import Case, TokenCounter
from pinaivu.verify.findings import Finding, Lacks, require, require_equal, shown

_AS_BOTH_COUNTED = (Reason.NONE, Reason.COUNTS_DIFFER)


def counted(case: Case) -> Finding:
    """V9: prompt and output were billed by counts that the text gives, within the tolerance.

    Where both parties counted the whole segment, billed and recounted agree; where the segment was
    cut, acknowledged or clipped, no more was billed than its text has. Not proven: how an engine
    split the text while it sampled, or that the copies are the true ones (V4, V5 do).
    """
    card, tokenizer = case.contents.model_card, case.copies.tokenizer
    if card is not None:
        require_equal(card.fingerprint, case.receipt.fingerprint, "the model card's fingerprint")
    if tokenizer is None:
        raise Lacks("needs the model's tokenizer")
    if card is None:
        raise Lacks("needs the model card, which names the tokenizer")
    require_equal(tokenizer.digest, card.tokenizer_digest, "the tokenizer's digest")
    newest = case.parameters(case.auction_epoch)
    tolerance = Tolerance(newest.tolerance_tokens, newest.tolerance_ppm)
    prompt = _recount_prompt(case, tokenizer, tolerance)
    outputs = _recount_outputs(case, tokenizer, tolerance)
    return Finding(
        evidence=f"recounted {prompt} prompt and {sum(outputs)} output tokens",
        facts={"prompt": prompt, "outputs": outputs, "tokenizer": shown(tokenizer.digest)},
    )


def _recount_prompt(case: Case, tokenizer: TokenCounter, tolerance: Tolerance) -> int:
    body: Mapping[str, Any] = case.request
    try:
        prompt = tokenizer.count_prompt(body, _kind(case))
    except InvalidEncoding as error:
        raise Lacks(f"not countable: {error}") from error
    said = case.job.prompt_tokens
    agrees = not tolerance.exceeded(prompt, said)
    require(agrees, f"the prompt has {prompt} tokens, {said} are billed for")
    return prompt


def _recount_outputs(case: Case, tokenizer: TokenCounter, tolerance: Tolerance) -> list[int]:
    billed = [work.segment for work in case.work if work.segment.output_billed]
    if not billed:
        return []
    choices = canonical_choices(_kind(case), case.response)
    messages: list[Any] = [choice.get("message", {}) for choice in choices]
    if any("tool_calls" in message for message in messages):
        raise Lacks("not countable: tool calls, whose tokens are more than their text")
    whole = text(choices)
    counts = []
    for segment in billed:
        part = whole[segment.start_byte : segment.end_byte]
        count = tokenizer.count_text(part.decode("utf-8", "replace"))
        said = segment.output_billed
        agrees = not tolerance.exceeded(count, said)
        if segment.result not in _AS_BOTH_COUNTED:
            agrees = agrees or said < count
        require(agrees, f"segment {segment.rank} has {count} tokens, {said} are billed")
        counts.append(count)
    return counts


def _kind(case: Case) -> JobKind:
    require(case.job.kind in frozenset(JobKind), f"{case.job.kind} is no kind of job")
    return JobKind(case.job.kind)
