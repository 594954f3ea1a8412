"""The auction bench runs and says what it promises; how fast is for `make bench-auction`."""

from pathlib import Path

from bench.auction import Size, measure

SMALL = Size(nodes=(2,), auctions=3, warm_up=1, book=60, rounds=3)


async def test_every_figure_is_there(tmp_path: Path) -> None:
    """Auctions between processes, live and standing, and over a book."""
    figures = await measure(SMALL, lambda nodes: f"sqlite:///{tmp_path}/{nodes}.db")
    assert list(figures) == ["live_n2", "standing_n2", "standing_60", "standing_60_crowded"]
    for figure in figures.values():
        assert figure.keys() == {"p50_ms", "p99_ms", "auctions", "cpu_ms"}
        assert 0 < figure["p50_ms"] <= figure["p99_ms"]
        assert figure["auctions"] == 3
        assert figure["cpu_ms"] > 0
