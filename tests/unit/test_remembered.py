"""What is known until a time is known until then, and not kept for ever."""

from pinaivu.remembered import Remembered


def test_known_until_its_time_and_forgotten_then() -> None:
    seen = Remembered[bytes]()
    for number in range(5):
        seen.note(bytes([number]), until_ms=100 + 50 * number, now_ms=50 * number)
    assert [bytes([number]) in seen for number in range(5)] == [False, False] + [True] * 3


def test_many_at_one_time_leave_together() -> None:
    seen = Remembered[int]()
    for number in range(1000):
        seen.note(number, until_ms=10, now_ms=0)
    assert len(seen) == 1000
    seen.note(-1, until_ms=30, now_ms=11)
    assert len(seen) == 1


def test_a_key_noted_again_is_known_longer() -> None:
    seen = Remembered[str]()
    seen.note("one", until_ms=10, now_ms=0)
    seen.note("one", until_ms=100, now_ms=5)
    seen.note("two", until_ms=100, now_ms=20)
    assert "one" in seen
