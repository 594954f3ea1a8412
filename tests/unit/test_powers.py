"""The figures of docs/powers.md, computed; and every test that it names exists."""

import re
from pathlib import Path

import pytest

from pinaivu.chain.exposure import loss_bound
from pinaivu.chain.records import Times

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "powers.md").read_text()
HOUR = 3_600_000
DAY = 24 * HOUR
TIMES = Times(HOUR, 12 * HOUR, 3 * DAY, 7 * DAY, 7 * DAY, DAY)
BALANCE = 10**12


def percent(loss: int) -> float:
    return round(100 * loss / BALANCE, 1)


def test_the_table_of_losses_is_what_the_bound_says() -> None:
    table = PAGE.split("<!-- figures: reaction -->")[1].split("\n\n")[0]
    rows = re.findall(r"^\| (\d+) % \| (.*) \|$", table, re.MULTILINE)
    assert len(rows) == 4
    for share, cells in rows:
        said = [float(cell.removesuffix(" %")) for cell in cells.split(" | ")]
        reactions = (0, HOUR, DAY, 4 * DAY - 1)
        computed = [
            percent(loss_bound(TIMES, int(share) * 10_000, balance=BALANCE, reaction_ms=ms))
            for ms in reactions
        ]
        assert said == computed


def test_hostile_money_and_sleep_cost_what_the_page_says() -> None:
    def lost(capital: int, reaction_ms: int = HOUR) -> int:
        return loss_bound(TIMES, 50_000, balance=BALANCE, capital=capital, reaction_ms=reaction_ms)

    assert percent(lost(BALANCE)) == 37.4
    assert lost(4 * BALANCE) < lost(5 * BALANCE) == BALANCE
    assert percent(lost(0, 4 * DAY - 1)) < 100
    assert lost(0, 4 * DAY) == BALANCE


def test_a_change_with_notice_costs_nothing_within_four_days() -> None:
    def lost(reaction_ms: int) -> int:
        return loss_bound(
            TIMES, 50_000, balance=BALANCE, reaction_ms=reaction_ms, notice_ms=7 * DAY
        )

    assert lost(4 * DAY - 1) == 0
    assert lost(4 * DAY) > 0


def test_nobody_loses_more_than_it_has() -> None:
    assert loss_bound(TIMES, 500_000, balance=1000, others=BALANCE) == 1000


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)`", PAGE))))
def test_every_test_that_the_page_names_exists(name: str) -> None:
    assert f"def {name}(" in (ROOT / "tests/integration/test_exits.py").read_text()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(tests/[\w/]+\.py)`", PAGE))))
def test_every_file_that_the_page_names_exists(path: str) -> None:
    assert (ROOT / path).is_file()
