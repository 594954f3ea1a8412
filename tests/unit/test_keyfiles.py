"""Key files: made once, kept, never readable by others."""

import os
from pathlib import Path

import pytest

from pinaivu.keyfiles import KeyFileUnsafe, load_key


def test_a_missing_key_is_made_and_kept(tmp_path: Path) -> None:
    """The second start finds the first one's key; only the owner can read it."""
    path = tmp_path / "deep" / "node.key"
    first = load_key(path, os.urandom)
    assert load_key(path, lambda _: pytest.fail("no second key is drawn")).secret == first.secret
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    """The message says which command mends it."""
    path = tmp_path / "node.key"
    load_key(path, os.urandom)
    path.chmod(mode)
    with pytest.raises(KeyFileUnsafe, match=f"chmod 600 {path}"):
        load_key(path, os.urandom)


@pytest.mark.parametrize("text", ["", "00" * 32, "zz" * 32, "11" * 31, "é"])
def test_what_is_no_key_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    """A damaged file is never replaced: it may be restored."""
    path = tmp_path / "node.key"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    with pytest.raises(KeyFileUnsafe):
        load_key(path, os.urandom)
    assert path.read_text(encoding="utf-8") == text


def test_a_crash_while_writing_leaves_no_half_a_key(tmp_path: Path) -> None:
    """What an earlier process left unfinished is written anew."""
    path = tmp_path / "node.key"
    (tmp_path / "node.key.part").write_text("1234")
    assert len(load_key(path, os.urandom).secret) == 32
