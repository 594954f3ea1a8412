"""What both transports do around one request: what to refuse, and in what form.

A refusal inside an SDK has to be an answer, not an exception: for a whole answer status 424 with
OpenAI's error body, which no SDK retries; in a stream an error event in the place of its end.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx
from msgspec import Struct

from pinaivu.client.errors import UNVERIFIED, AnswerRefuted, AnswerUnproven, Unverified
from pinaivu.client.exchange import Asked, Given, encode, read_asked
from pinaivu.client.judge import Judge
from pinaivu.client.lazy import Later
from pinaivu.errors import PinaivuError

STATUS: Final = httpx.codes.FAILED_DEPENDENCY
_BODYS: Final = frozenset({"content-length", "content-type", "accept"})
_HOPS: Final = frozenset({"content-length", "content-encoding", "transfer-encoding"})
_BUNDLE_S: Final = 30.0


class Terms(Struct, frozen=True, kw_only=True):
    """How a client verifies: waiting at most `within_s` for a bundle.

    `later` is there where answers are handed over before; `keep` is a folder for the bundles of
    those that held.
    """

    judge: Judge
    within_s: float
    now_ms: Callable[[], int]
    later: Later | None = None
    keep: Path | None = None

    def judged(self, asked: Asked, given: Given, raw: bytes) -> None:
        """Judge an answer by its bundle, and keep it where it holds."""
        self.judge.judge(asked, given, raw)
        if self.keep is not None:
            self.keep.mkdir(parents=True, exist_ok=True)
            (self.keep / f"{given.request_id}.pnv").write_bytes(raw)


def prepare(request: httpx.Request, content: bytes, now_ms: Callable[[], int]) -> Asked | None:
    """What is asked; None where nothing is bought. Compression is declined on its way.

    `AnswerUnproven` for what would be bought and could not be verified: it is not sent at all.
    """
    request.headers["accept-encoding"] = "identity"
    if request.method != "POST":
        return None
    asked = read_asked(str(request.url.copy_with(query=None)), content, now_ms())
    if asked is None:
        raise AnswerUnproven(
            f"what {request.url.path} answers to this body can't be verified, so it was not sent"
        )
    return asked


def require_verifiable(answer: httpx.Response) -> None:
    """Raise where the answer's bytes are not what they stand for."""
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise AnswerRefuted("the answer is compressed, which was declined")


def streams(answer: httpx.Response) -> bool:
    """Whether the answer comes as server-sent events."""
    kind: str = answer.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower() == "text/event-stream"


def bundle_request(request: httpx.Request, url: str) -> httpx.Request:
    """The request for a bundle, with the headers of the one that it is about."""
    headers = [(name, value) for name, value in request.headers.items() if name not in _BODYS]
    timeout = httpx.Timeout(_BUNDLE_S).as_dict()
    return httpx.Request("GET", url, headers=headers, extensions={"timeout": timeout})


def kept_headers(answer: httpx.Response) -> list[tuple[str, str]]:
    """An answer's headers without those that describe how its bytes came."""
    return [(name, value) for name, value in answer.headers.items() if name not in _HOPS]


def refusal(error: Unverified) -> dict[str, Any]:
    """An unverified answer as an error body: what failed, and the report where there is one."""
    told: dict[str, Any] = {
        "message": f"The answer is withheld: {error}",
        "type": "verification_error",
        "param": None,
        "code": error.code,
    }
    if error.report is not None:
        told["report"] = error.report.to_json()
    return {"error": told}


def refused(error: Unverified) -> httpx.Response:
    """The refusal in the place of a whole answer."""
    return httpx.Response(STATUS, json=refusal(error))


def refused_event(error: Unverified) -> bytes:
    """The refusal in the place of a stream's end."""
    return b"data: " + encode(refusal(error)) + b"\n\n"


def as_unverified(error: PinaivuError) -> Unverified:
    """Whatever kept an answer from being judged, as a reason not to hand it over."""
    return error if isinstance(error, UNVERIFIED) else AnswerUnproven(str(error))
