"""What can go wrong in a gateway, and how a client is told.

    ApiError                        an answer in OpenAI's error form; its message says what to do
    PinaivuError
    ├── PeerFault
    │   ├── MarketRefused         the coordinator refused the job or has no (further) node for it
    │   ├── CoordinatorFault      the coordinator sent an award or receipt that does not hold
    │   └── AttemptFailed         a node refused, fell silent, broke off or broke the protocol
    └── TransportFailure
        └── CoordinatorUnreachable  no answer from the coordinator in time

`ApiError` is no `PinaivuError`: it is an answer, made at the edge from what happened inside. What
there is of them stands in `catalogue`.
"""

from typing import Final

from gateway.catalogue import CATALOGUE, TYPES
from pinaivu.codes import Reason
from pinaivu.encoding import InvalidParameter
from pinaivu.errors import PeerFault, TransportFailure
from pinaivu.p2p import wire

_MS: Final = 1000


class MarketRefused(PeerFault):
    """The coordinator's refusal; `code` is its stable word, `reason` a `codes.Reason` or 0."""

    def __init__(self, refused: wire.Refused) -> None:
        super().__init__(refused.detail)
        self.code = refused.code
        self.reason = refused.reason
        self.retry_after_ms = refused.retry_after_ms


class CoordinatorFault(PeerFault):
    """The coordinator sent an award, receipt or frame that does not hold."""


class AttemptFailed(PeerFault):
    """One award came to nothing; `reason` is 10–18."""

    def __init__(self, reason: int, detail: str, engine_status: int = 0) -> None:
        """`engine_status`: what the node's engine answered, where it refused the request."""
        super().__init__(detail)
        self.reason = reason
        self.engine_status = engine_status


class CoordinatorUnreachable(TransportFailure):
    """No answer from the coordinator in time; whether it acted is unknown."""


class ApiError(Exception):
    """An answer with an error status, in OpenAI's form."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    def body(self, request_id: str | None = None) -> dict[str, object]:
        """``{"error": {message, type, param, code}}``, with the request id where there is one."""
        error = {
            "message": self.message,
            "type": TYPES.get(self.status, "api_error"),
            "param": self.param,
            "code": self.code,
        }
        return {"error": error} | ({"request_id": request_id} if request_id else {})

    def headers(self) -> dict[str, str]:
        """Retry-After, where trying again makes sense."""
        if self.retry_after_s is None:
            return {}
        return {"retry-after": str(self.retry_after_s)}


def from_parameter(error: InvalidParameter) -> ApiError:
    """400 naming the parameter."""
    return ApiError(400, "invalid_value", f"{error}. Correct the request.", param=error.parameter)


def from_refusal(error: MarketRefused, param: str | None = None) -> ApiError:
    """The coordinator's refusal as an answer: whose turn it is to do what.

    `param`: the member of the request that stands in every node's way.
    """
    entry, code = CATALOGUE.get(error.code), error.code
    if entry is None or not entry.market:
        entry, code = CATALOGUE["market_refused"], "market_refused"
    retry = max(1, -(-error.retry_after_ms // _MS)) if entry.retry else None
    message = f"{error}; {entry.do}."
    if param and error.reason == Reason.NO_NODES_AVAILABLE:
        message = f"No node that serves this model offers what {param} asks for; {entry.do}."
    named = param or (entry.param if entry.param != "*" else None)
    return ApiError(entry.status, code, message, param=named, retry_after_s=retry)


def from_attempt(reason: int, detail: str, *, cut: bool, engine_status: int = 0) -> ApiError:
    """All attempts are used up; `cut`: the client has a part of the answer already.

    `engine_status`: what the last node's engine answered, where it refused the request itself.
    """
    if reason == Reason.CLIENT_GONE:
        return client_gone()
    if cut:
        message = f"The answer broke off ({detail}) and can't be continued; send the request again."
        return ApiError(502, Reason(reason).name.lower(), message)
    if engine_status:
        message = f"The nodes' engines refuse this request ({detail}); change what they name."
        return ApiError(422, "request_refused", message)
    message = f"No node served the request (the last one: {detail}); retry in a moment."
    return ApiError(503, "no_node_left", message, retry_after_s=1)


def client_gone() -> ApiError:
    """499, for logs and metrics."""
    return ApiError(499, "client_closed_request", "The client has gone; nothing is to be done.")


def unreachable() -> ApiError:
    """503: the market can't be reached."""
    return ApiError(
        503,
        "coordinator_unreachable",
        "The market's coordinator can't be reached right now; retry in a few seconds.",
        retry_after_s=5,
    )


def coordinator_fault(detail: str) -> ApiError:
    """502: what the market answered does not hold."""
    return ApiError(
        502, "coordinator_fault", f"The market's answer does not hold ({detail}); send it again."
    )


def storage() -> ApiError:
    """503: nothing is served that couldn't be accounted for."""
    return ApiError(
        503,
        "storage_unavailable",
        "The gateway can't reach its database and serves nothing it couldn't account for;"
        " retry in a few seconds.",
        retry_after_s=5,
    )


def internal() -> ApiError:
    """500: a bug of ours."""
    return ApiError(
        500, "internal_error", "The gateway failed; retry, and report the request id if it repeats."
    )
