"""A private gateway's own refusals, and when its grant is signed anew."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from pinaivu.errors import Misconfigured
from pinaivu.grants import Caps, sign_grant
from pinaivu.keys import SecretKey
from pinaivu.local.private import parse_models, require_loopback
from pinaivu.typed_data import Domain

WALLET = SecretKey(b"\x07" * 32)
DOMAIN = Domain(31337, b"\x51" * 20)


@pytest.mark.parametrize("listen", ["127.0.0.1:8080", "127.8.0.1:1", "localhost:80", "[::1]:80"])
def test_this_machine_alone_may_reach_it(listen: str) -> None:
    require_loopback(listen)


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:80", "[::]:80", "192.168.1.2:80", "8080", ":80", "example.org:80", ""]
)
def test_every_other_address_is_refused(listen: str) -> None:
    with pytest.raises(Misconfigured, match="this machine alone"):
        require_loopback(listen)


def test_models_are_names_and_folders() -> None:
    assert parse_models(["a/b=files", "c=d=e"]) == {"a/b": Path("files"), "c": Path("d=e")}
    for text in ("a", "=b", "a="):
        with pytest.raises(Misconfigured, match="NAME=FOLDER"):
            parse_models([text])


def test_a_grant_has_the_caps_it_was_signed_with() -> None:
    """Other caps are another grant: the old one is not gone on with."""
    caps = Caps(per_job=1, per_day=2, total=3, max_price=4)
    signed = sign_grant(
        WALLET, DOMAIN, b"\x11" * 32, b"\x03" * 20, 5, caps, now_ms=1000, salt=bytes(32)
    )
    signed.require(DOMAIN, WALLET.address)
    grant = signed.message
    assert (grant.payer, grant.grant_epoch, grant.models) == (WALLET.address, 5, ())
    assert grant.not_after_ms == 1000 + 30 * 86_400_000
    assert caps.of(grant)
    for name in ("per_job", "per_day", "total", "max_price"):
        assert not replace(caps, **{name: 9}).of(grant)
