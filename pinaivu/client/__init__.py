"""Answers that are verified where they are used: inside the OpenAI SDK's own HTTP client.

    from openai import OpenAI
    from pinaivu import client

    trust = client.Trust(policy=client.answers(domain), chain=lambda: ContractFacts(chain))
    sdk = OpenAI(base_url=…, api_key=…, http_client=client.verifying(trust))
    sdk.chat.completions.create(…)      # raises unless the answer's receipt holds

After an answer the client fetches its bundle and verifies it against what was really sent and what
the application really gets. A whole answer that doesn't hold becomes `openai.APIStatusError` with
status 424, a streamed one `openai.APIError` in the place of its end; `code` is `answer_refuted`,
`answer_unproven` or `receipt_missing`, and the report is in the error's body. With `lazy=True`
answers come at once; `unverified()` lists those without a verdict, `require_verified()` raises.

What is verified of an answer is what commitments cover (types.md, section 5): texts, tool calls,
finish reasons. Logprobs, usage and members of other names are the gateway's word.
"""

from pinaivu.client.bundles import books_at
from pinaivu.client.clients import (
    AsyncVerifyingClient,
    VerifyingClient,
    verifying,
    verifying_async,
)
from pinaivu.client.errors import AnswerRefuted, AnswerUnproven, ReceiptMissing
from pinaivu.client.lazy import Open
from pinaivu.client.trust import Trust, answers

__all__ = [
    "AnswerRefuted",
    "AnswerUnproven",
    "AsyncVerifyingClient",
    "Open",
    "ReceiptMissing",
    "Trust",
    "VerifyingClient",
    "answers",
    "books_at",
    "verifying",
    "verifying_async",
]
