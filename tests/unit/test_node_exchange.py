"""The window: what may be on the way before which acknowledgement."""

import pytest

from node.exchange import Window
from pinaivu.commitments import BadPreimage
from pinaivu.p2p import wire
from tests.unit import node_support as n

JOB = n.JobDraft(max_output_tokens=100)


def _ack(number: int) -> wire.Ack:
    return wire.Ack(number, JOB.acks.preimage(number))


def _window() -> Window:
    return Window(JOB.award(b"\x01" * 32))


def test_the_first_frame_goes_out_on_trust() -> None:
    """Before it is sent there is room for a window."""
    window = _window()
    assert window.room
    window.put(31)
    assert window.room
    window.put(32)
    assert not window.room


def test_nothing_follows_the_first_frame_without_preimage_1() -> None:
    """However little it held."""
    window = _window()
    window.put(1)
    window.sent()
    assert not window.room
    window.accept(_ack(1))
    assert window.room


def test_32_unacknowledged_tokens_are_the_most() -> None:
    """Each further preimage makes room for 32 more."""
    window = _window()
    window.sent()
    window.accept(_ack(1))
    for acks, tokens in ((1, 32), (2, 64), (3, 96)):
        if acks > 1:
            window.accept(_ack(acks))
        window.put(tokens - 1)
        assert window.room
        window.put(tokens)
        assert not window.room


def test_a_count_that_shrinks_makes_no_room() -> None:
    """More text can be fewer tokens; what was on the way stays on the way."""
    window = _window()
    window.sent()
    window.accept(_ack(1))
    window.put(32)
    window.put(31)
    assert not window.room


def test_a_jump_over_several_preimages_counts_them_all() -> None:
    """The last one proves those below it."""
    window = _window()
    window.accept(_ack(3))
    assert (window.acks, window.last_preimage) == (3, JOB.acks.preimage(3))


@pytest.mark.parametrize(
    "wrong",
    [
        wire.Ack(1, bytes(32)),
        wire.Ack(1, b""),
        wire.Ack(2, JOB.acks.preimage(1)),
        wire.Ack(0, JOB.acks.anchor),
        wire.Ack(9, b"\x01" * 32),
    ],
    ids=["zeros", "nothing", "another's number", "the anchor", "beyond the chain"],
)
def test_what_does_not_lead_to_the_anchor_is_refused(wrong: wire.Ack) -> None:
    """And counts for nothing."""
    window = _window()
    with pytest.raises(BadPreimage):
        window.accept(wrong)
    assert (window.acks, window.last_preimage) == (0, bytes(32))


def test_an_acknowledgement_counts_once() -> None:
    """The same preimage again is a broken rule, not another 32 tokens."""
    window = _window()
    window.accept(_ack(1))
    with pytest.raises(BadPreimage):
        window.accept(_ack(1))
