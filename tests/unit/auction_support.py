"""A job's auction as the unit tests hold it: header, market, and what is known of every node."""

from typing import Any, Final

from msgspec.structs import replace

from coordinator.reputation import Standing
from pinaivu.auction.replay import market_of
from pinaivu.auction.rule import Market
from pinaivu.auction.transcript import Header
from pinaivu.typed_data import digest
from tests.unit.coordinator_world import MODEL_RECORD, RULES
from tests.unit.ledger_support import DOMAIN, FINGERPRINT, LOG, NOW, RESERVE, grant, job

STANDING: Final = Standing(success_ppm=900_000, cal_t=1000, cal_s=1000, newcomer=False)


def market(**more: Any) -> Market:
    """The market of `job()` and `grant()` at the moment it opens."""
    opened = market_of(header(), job(), grant(), RULES)
    return replace(opened, **({"close_ms": NOW} | more))


def header() -> Header:
    terms = job()
    return Header(
        job_digest=digest(DOMAIN, terms),
        log_id=LOG,
        epoch=1,
        nonce=b"\x33" * 32,
        model_key=bytes(32),
        fingerprint=FINGERPRINT,
        ratio_ppm=MODEL_RECORD.ratio_ppm,
        prompt_tokens=terms.prompt_tokens,
        expected_tokens=50,
        max_output_tokens=terms.max_output_tokens,
        value_of_time=0,
        mode=terms.mode,
        parameters_digest=RULES.digest(),
        open_ms=NOW,
        close_ms=0,
        book_root=bytes(32),
        book_size=0,
        chain_block=7,
        reserve=RESERVE,
        eligible=0,
        called=0,
    )
