"""Cross-origin requests: off unless origins are configured, and never with a browser's cookies.

A page that calls the gateway holds an API key, and so does everybody who looks at the page. It is
for keys of the page's own user, such as a private gateway's.
"""

from collections.abc import Sequence
from typing import Any


def cors_of(origins: Sequence[str]) -> dict[str, Any]:
    """Settings of Starlette's middleware for pages of these origins; ``*`` means any page."""
    return {
        "allow_origins": list(origins),
        "allow_methods": ["GET", "POST", "DELETE"],
        "allow_headers": ["*"],  # SDKs send a dozen of their own
        "expose_headers": ["*"],
        "allow_credentials": False,
        "max_age": 600,
    }
