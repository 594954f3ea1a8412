"""Frames as they are read: what no honest peer says is no frame."""

import msgspec
import pytest

from pinaivu.errors import InvalidEncoding
from pinaivu.p2p import wire


@pytest.mark.parametrize("index", [-1, 2**63, 2**64 - 1])
def test_a_number_that_no_database_holds_is_refused(index: int) -> None:
    """Else one number of a coordinator's would end a gateway, and again at each start."""
    said = msgspec.msgpack.encode({"t": "receipted", "receipt": b"", "index": index})
    with pytest.raises(InvalidEncoding, match="index"):
        wire.read_gateway_answer(said)


@pytest.mark.parametrize("index", [0, 2**63 - 1])
def test_any_other_is_read(index: int) -> None:
    frame = wire.Receipted(b"receipt", index)
    assert wire.read_gateway_answer(wire.encode(frame)) == frame
