"""docs/user.md has the tables that the gateway's code gives: parameters and errors."""

import os
from typing import Final

import pytest

from gateway import catalogue, parameters
from tests.docs.pages import ROOT

PAGE: Final = ROOT / "docs" / "user.md"
TABLES: Final = {"parameters": parameters.markdown(), "errors": catalogue.markdown()}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_the_codes_own(name: str) -> None:
    """`WRITE_PAGES=1` puts the code's table into the page."""
    text = PAGE.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->\n", f"<!-- end of the {name} -->\n"
    start, stop = text.index(begin) + len(begin), text.index(end)
    if os.environ.get("WRITE_PAGES"):
        PAGE.write_text(text[:start] + TABLES[name] + text[stop:], encoding="utf-8")
        return
    message = "run this test with WRITE_PAGES=1 and commit the page"
    assert text[start:stop] == TABLES[name], message
