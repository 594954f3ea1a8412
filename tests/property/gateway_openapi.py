"""What the gateway serves, as an OpenAPI description for `test_gateway_http`: statuses and shapes.

It is the tests' own description, written by hand and kept here: the application publishes none.
Every status that a route may answer stands here; whatever else comes is a finding.
"""

from typing import Any, Final

from tests.unit.gateway_facts import MODEL

UNAVAILABLE: Final = ("502", "503")
"""The only statuses from 500 on: they say that market, log or database can't be reached."""

_ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "minLength": 10},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}
_CHAT: Final = {
    "type": "object",
    "required": ["model", "messages"],
    "properties": {
        "model": {"enum": [MODEL, "nobody/serves-this"]},
        "messages": {
            "type": "array",
            "minItems": 1,
            "maxItems": 3,
            "items": {
                "type": "object",
                "required": ["role", "content"],
                "properties": {
                    "role": {"enum": ["system", "user", "assistant"]},
                    "content": {"type": "string", "maxLength": 200},
                },
                "additionalProperties": False,
            },
        },
        "max_tokens": {"type": "integer", "minimum": 1, "maximum": 200},
        "temperature": {"type": "number", "minimum": 0, "maximum": 2},
        "stream": {"type": "boolean"},
        "stop": {"type": "array", "maxItems": 4, "items": {"type": "string", "minLength": 1}},
        "seed": {"type": "integer", "minimum": 0, "maximum": 2**53 - 1},
        "pinaivu": {
            "type": "object",
            "properties": {
                "auction": {"enum": ["live", "standing"]},
                "max_cost_units": {"type": "integer", "minimum": 0, "maximum": 10**9},
            },
            "additionalProperties": False,
        },
    },
}
_COMPLETION: Final = {
    "type": "object",
    "required": ["id", "object", "created", "model", "choices", "usage", "request_id"],
    "properties": {"choices": {"type": "array", "minItems": 1}},
}
_LIST: Final = {"type": "object", "required": ["object", "data"]}
_OBJECT: Final = {"type": "object"}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": "as it says", "content": {"application/json": {"schema": schema}}}


def _errors(*statuses: str) -> dict[str, Any]:
    return {status: _json(_ERROR) for status in (*statuses, *UNAVAILABLE)}


def _get(shape: dict[str, Any], *errors: str, parameter: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"responses": {"200": _json(shape)} | _errors("401", *errors)}
    if parameter:
        shape = {"type": "string", "minLength": 1}
        found["parameters"] = [{"name": parameter, "in": "path", "required": True, "schema": shape}]
    return {"get": found}


def _chat() -> dict[str, Any]:
    answered = _json(_COMPLETION)
    answered["content"]["text/event-stream"] = {"schema": {}}  # looked at by others
    errors = _errors("400", "401", "403", "404", "413", "422", "429")
    body = {"required": True, "content": {"application/json": {"schema": _CHAT}}}
    return {"post": {"requestBody": body, "responses": {"200": answered} | errors}}


def _state() -> dict[str, Any]:
    return {"get": {"responses": {"200": _json(_OBJECT), "503": _json(_OBJECT)}}}


DESCRIPTION: Final[dict[str, Any]] = {
    "openapi": "3.1.0",
    "info": {"title": "Pinaivu gateway", "version": "1"},
    "paths": {
        "/v1/chat/completions": _chat(),
        "/v1/models": _get(_LIST),
        "/v1/models/{id}": _get(_OBJECT, "404", parameter="id"),
        "/v1/receipts/{id}": _get(_OBJECT, "404", parameter="id"),
        "/v1/receipts/{id}/bundle": _get(_OBJECT, "404", parameter="id"),
        "/v1/usage": _get(_OBJECT),
        "/health": _state(),
        "/healthz": _state(),
        "/ready": _state(),
    },
}
