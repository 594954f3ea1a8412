"""What is said of a finished request to whoever runs the gateway: figures and ids, no content.

One `Report` feeds the log line and the metrics. It holds nothing of prompt, answer or API key, and
no text that a node or an engine has sent: such a text may quote the prompt.
"""

from msgspec import Struct, to_builtins


class Report(Struct, frozen=True, kw_only=True):
    """One request: ids, counts, base units, milliseconds since it came.

    `outcome` is ``complete`` or the code of the error that the client was told; `attempts` are the
    results of its awards in order, `Reason` names or ``none``. Times are 0 where nothing came.
    """

    request_id: str
    key_id: str
    model: str
    log_id: str
    node: str | None
    outcome: str
    attempts: list[str]
    prompt_tokens: int
    output_tokens: int
    units: int
    first_token_ms: int
    total_ms: int
    streams: bool

    def fields(self) -> dict[str, object]:
        """As members of a log line."""
        found = to_builtins(self)
        assert isinstance(found, dict)
        return found
