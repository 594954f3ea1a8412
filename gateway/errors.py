"""What can go wrong in a gateway, and how a client is told.

    ApiError                        an answer in OpenAI's error form; its message says what to do
    PinaivuError
    ├── PeerFault
    │   ├── MarketRefused         the coordinator refused the job or has no (further) node for it
    │   ├── CoordinatorFault      the coordinator sent an award or receipt that does not hold
    │   └── AttemptFailed         a node refused, fell silent, broke off or broke the protocol
    └── TransportFailure
        └── CoordinatorUnreachable  no answer from the coordinator in time

`ApiError` is no `PinaivuError`: it is an answer, made at the edge from what happened inside.
"""

from typing import Final

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

    def __init__(self, reason: int, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


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
            "type": _TYPES.get(self.status, "api_error"),
            "param": self.param,
            "code": self.code,
        }
        return {"error": error} | ({"request_id": request_id} if request_id else {})

    def headers(self) -> dict[str, str]:
        """Retry-After, where trying again makes sense."""
        if self.retry_after_s is None:
            return {}
        return {"retry-after": str(self.retry_after_s)}


_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    502: "upstream_error",
    503: "service_unavailable_error",
}

# Refusals that say something about the caller's permission, money or model; code → status, advice.
_REFUSALS: Final = {
    "unknown_model": (404, "ask /v1/models what is served"),
    "model_not_granted": (403, "choose a model of the grant or have the payer sign another grant"),
    "grant_expired": (403, "have the payer sign a new grant"),
    "grant_revoked": (403, "have the payer sign a new grant"),
    "wrong_grant": (403, "have the payer sign a grant for this gateway and log"),
    "not_assigned": (403, "have the payer assign its balance to this gateway's log"),
    "above_grant": (400, "lower the price limits"),
    "grant_exhausted": (429, "have the payer sign a new grant"),
    "grant_exhausted_today": (429, "wait for the next day (UTC) or raise the grant's daily cap"),
    "account_exhausted": (429, "raise the account's limit"),
    "insufficient_balance": (429, "deposit more, or set max_tokens or a price limit"),
    "debit_limit": (503, "retry later, or set max_tokens or a price limit"),
}


def from_parameter(error: InvalidParameter) -> ApiError:
    """400 naming the parameter."""
    return ApiError(400, "invalid_value", f"{error}. Correct the request.", param=error.parameter)


def from_refusal(error: MarketRefused) -> ApiError:
    """The coordinator's refusal as an answer: whose turn it is to do what."""
    retry = max(1, -(-error.retry_after_ms // _MS))
    if error.reason in (Reason.NO_NODES_WITHIN_LIMITS, Reason.NO_NODES_AVAILABLE):
        advice = (
            "raise the limit that stands in the way or retry later"
            if error.reason == Reason.NO_NODES_WITHIN_LIMITS
            else "retry in a moment"
        )
        code = Reason(error.reason).name.lower()
        return ApiError(503, code, f"{error}; {advice}.", retry_after_s=retry)
    status, advice = _REFUSALS.get(error.code, (503, "retry in a moment"))
    return ApiError(
        status,
        error.code,
        f"{error}; {advice}.",
        retry_after_s=retry if status in (429, 503) else None,
    )


def from_attempt(reason: int, detail: str, *, cut: bool) -> ApiError:
    """All attempts are used up; `cut`: the client has a part of the answer already."""
    name = Reason(reason).name.lower()
    if cut:
        message = f"The answer broke off ({detail}) and can't be continued; send the request again."
        return ApiError(502, name, message)
    message = f"No node served the request (the last one: {detail}); retry in a moment."
    return ApiError(503, "no_node_left", message, retry_after_s=1)


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
