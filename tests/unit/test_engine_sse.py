"""Events come out whole however the bytes were cut."""

import pytest

from node.engines.sse import EventDecoder, EventTooLong

STREAM = (
    b': hi\n\ndata: {"a": 1}\n\nevent: x\r\ndata:two\r\ndata:  lines\r\n\r\n'
    b"id: 7\n\ndata: [DONE]\n\n"
)
PAYLOADS = [b'{"a": 1}', b"two\n lines", b"[DONE]"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, len(STREAM)])
def test_payloads_do_not_depend_on_the_cuts(size: int) -> None:
    decoder = EventDecoder()
    chunks = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]
    assert [payload for chunk in chunks for payload in decoder.feed(chunk)] == PAYLOADS


def test_an_event_is_given_once_it_is_complete() -> None:
    decoder = EventDecoder()
    assert decoder.feed(b"data: x\n") == []
    assert decoder.feed(b"\ndata: y") == [b"x"]
    assert decoder.feed(b"\n\n") == [b"y"]


@pytest.mark.parametrize("chunk", [b"data: " + b"x" * 65536, b"data: " + b"x" * 65536 + b"\n"])
def test_an_event_without_end_is_refused(chunk: bytes) -> None:
    """As one line, or as ever more lines."""
    decoder = EventDecoder()
    for _ in range(63):
        assert decoder.feed(chunk) == []
    with pytest.raises(EventTooLong):
        decoder.feed(chunk * 2)
