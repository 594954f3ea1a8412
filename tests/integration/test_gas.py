"""What every operation costs, against the committed snapshot."""

import pytest

from bench import gas

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def figures() -> gas.Figures:
    """One run of the whole measurement."""
    return gas.run()


def test_nothing_grew_by_more_than_a_hundredth(figures: gas.Figures) -> None:
    """`make bench-gas WRITE=1` accepts new figures."""
    assert gas.grown(figures, gas.load_snapshot()) == []


def test_the_snapshot_has_every_operation(figures: gas.Figures) -> None:
    """And none that is measured no more."""
    assert gas.load_snapshot().keys() == figures.keys()


def test_growth_is_noticed() -> None:
    """A hundredth passes, a unit more does not, and neither does an operation without a figure."""
    snapshot = {"settle": {"gas": 1000.0}}
    assert gas.grown({"settle": {"gas": 1010.0}}, snapshot) == []
    assert gas.grown({"settle": {"gas": 1011.0}}, snapshot) == ["settle: 1,011 gas, 1,000 before"]
    assert gas.grown({"other": {"gas": 1.0}}, snapshot) == ["other: 1 gas, not in the snapshot"]


@pytest.mark.parametrize("limit", [1, 1_000, 5_000, 70_000])
def test_the_unluckiest_size_is_the_dearest_of_all(limit: int) -> None:
    """Of every size up to the limit."""
    growth = gas.WORST_GROWTH
    dearest = max((gas.proof_cost(size, size + growth), size) for size in range(1, limit + 1))
    assert gas.unluckiest(limit) == dearest
