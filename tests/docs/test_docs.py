"""The documents do what they say: marked blocks run, links lead somewhere, nothing names a machine."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.docs.pages import ROOT, Page, documents
from tests.docs.terminal import Terminal

PAGES: Final = {page.name: page for page in documents()}
RUN: Final = [name for name, page in PAGES.items() if page.marked]

# Pages with shell blocks of which none is run, and why.
NOT_RUN: Final = {
    "CONTRIBUTING.md": "its commands are the targets of the Makefile, of which this test is one",
    "docs/gateway.md": "",
}
_ABSOLUTE: Final = re.compile(r"(?<![\w.$}/:-])/(?:work|home|root|tmp|Users|mnt|opt)/\S*")
_HOST: Final = re.compile(r"https?://(?!127\.0\.0\.1|localhost|\w+\.example\b)[\w.-]+\.\w+")
