"""What a key may do, as options of `pinaivu keys create` and `limit`.

A number may be `none`: no limit. What isn't given is left as it is.
"""

import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
NONE: Final = "none"
_DAY_MS: Final = 86_400_000
_LISTS: Final = ("scopes", "models")
_LISTED_TERMS: Final = ("allow", "deny")


class _Limit(click.ParamType[int | str]):
    """A whole number that is not negative, or `none`."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """The number, or `NONE`."""
        if value == NONE:
            return NONE
        if not (isinstance(value, str) and value.isascii() and value.isdigit()):
            self.fail(f"{value!r} is neither a whole number nor 'none'", param, ctx)
        return int(value)


_NUMBERS: Final = {
    "requests_per_minute": "Most requests in a minute of the clock.",
    "tokens_per_minute": "Most tokens in a minute of the clock, prompt and output.",
    "streams": "Most requests under way at once.",
    "daily_tokens": "Most tokens per UTC day.",
    "daily_units": "Most base units per UTC day.",
    "monthly_tokens": "Most tokens per UTC month.",
    "monthly_units": "Most base units per UTC month.",
}
_TERM_NUMBERS: Final = {
    "max_cost_units": "Ceiling: most base units a request may cost.",
    "max_price_in": "Ceiling: base units per million prompt tokens.",
    "max_price_out": "Ceiling: base units per million output tokens.",
    "value_of_time": "Where a request says nothing: base units a second of waiting is worth.",
}


def policy_options(function: F) -> F:
    """All options that say what a key may do."""
    options = [
        click.option(
            "--scope",
            "scopes",
            multiple=True,
            type=click.Choice(["inference", "receipts", "usage", "admin"]),
            help="What it may be used for; repeated. All but admin by default; admin stands alone.",
        ),
        click.option(
            "--expires-days", type=_Limit(), help="Ends so many days from now; none: never."
        ),
        click.option(
            "--model", "models", multiple=True, help="A model it may use; repeated; none: all."
        ),
        *(_number(name, text) for name, text in (_NUMBERS | _TERM_NUMBERS).items()),
        click.option(
            "--auction",
            type=click.Choice(["live", "standing", NONE]),
            help="Where a request says nothing: how the auction is held.",
        ),
        click.option("--allow", multiple=True, help="Only these nodes; repeated; none: all."),
        click.option("--deny", multiple=True, help="Not these nodes; repeated; none: no such."),
        click.option(
            "--fingerprint", help="Where a request says nothing: the model card it demands."
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def policy_changes(given: dict[str, Any]) -> dict[str, Any]:
    """What was given, as members of a policy."""
    changes: dict[str, Any] = {}
    for name in (*_LISTS, *_NUMBERS):
        if given[name] not in (None, ()):
            changes[name] = _value(given[name])
    if given["expires_days"] is not None:
        days = _value(given["expires_days"])
        now_ms = time.time_ns() // 1_000_000
        changes["expires_ms"] = None if days is None else now_ms + days * _DAY_MS
    terms = {
        name: _value(given[name])
        for name in (*_TERM_NUMBERS, *_LISTED_TERMS, "auction", "fingerprint")
        if given[name] not in (None, ())
    }
    return changes | ({"terms": terms} if terms else {})


def _number(name: str, text: str) -> Callable[[F], F]:
    return click.option("--" + name.replace("_", "-"), type=_Limit(), help=text)


def _value(found: Any) -> Any:
    """None for `none`, also as the only one of a list."""
    if found in (NONE, (NONE,)):
        return None
    return list(found) if isinstance(found, tuple) else found
