"""What is kept of prompts and answers can be opened by the API key's holder, and by nobody else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.seals import Part, Seal

JOB, OTHER = bytes(15) + b"\1", bytes(15) + b"\2"
CONTENT = b'{"messages": "a prompt"}'


@given(st.binary(min_size=1, max_size=300))
def test_what_is_sealed_is_opened_by_the_same_key(content: bytes) -> None:
    kept = Seal.of("sk-pnv-one").close(JOB, "answer", content)
    assert Seal.of("sk-pnv-one").open(JOB, "answer", kept) == content


def test_nothing_of_the_content_shows() -> None:
    kept = Seal.of("sk-pnv-one").close(JOB, "request", CONTENT)
    assert not any(CONTENT[at : at + 4] in kept for at in range(len(CONTENT) - 3))
    assert kept != Seal.of("sk-pnv-one").close(OTHER, "request", CONTENT)


@pytest.mark.parametrize(
    ("key", "job", "part"),
    [
        ("sk-pnv-two", JOB, "request"),
        ("sk-pnv-one", OTHER, "request"),
        ("sk-pnv-one", JOB, "answer"),
    ],
    ids=["another key", "another job", "another part"],
)
def test_it_opens_where_it_belongs_only(key: str, job: bytes, part: Part) -> None:
    kept = Seal.of("sk-pnv-one").close(JOB, "request", CONTENT)
    assert Seal.of(key).open(job, part, kept) is None


def test_what_was_changed_or_not_sealed_is_not_opened() -> None:
    """Also what an older version left unsealed."""
    seal = Seal.of("sk-pnv-one")
    kept = seal.close(JOB, "request", CONTENT)
    for wrong in (kept[:-1] + bytes([kept[-1] ^ 1]), CONTENT, b"{}", b""):
        assert seal.open(JOB, "request", wrong) is None
    assert seal.open(JOB, "request", None) is None


def test_what_an_earlier_process_sealed_can_be_opened() -> None:
    """The derivation and the form on disk are fixed."""
    kept = bytes.fromhex(
        "44acfa9168dfb2e4755164c4133db6e2ec92126f9acc7ea81e0116aabd68c24c33a25bac143c68b4"
    )
    assert Seal.of("sk-pnv-one").open(JOB, "request", kept) == CONTENT
