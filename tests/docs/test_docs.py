"""The documents do what they say: marked blocks run, links lead somewhere, no machine is named."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.docs.pages import ROOT, Block, Page, documents
from tests.docs.terminal import BlockFailed, Terminal

PAGES: Final = {page.name: page for page in documents()}
RUN: Final = [name for name, page in PAGES.items() if page.marked]
# Pages with shell blocks of which none is run, and why.
NOT_RUN: Final = {
    "CONTRIBUTING.md": "its commands are targets of the Makefile, this test among them",
    "docs/conformance.md": "it takes an environment of vLLM's own, which PyPI alone can't give",
    "docs/faults.md": "its evidence is of faults, which no honest network makes",
    "docs/deploy.md": "it costs money; tests/integration/test_deploy.py goes its way",
    "docs/verifier.md": "it takes an enclave's boot; tests/integration/test_quorum.py goes its way",
    "SECURITY.md": "its one command shows file modes of the reader's own network",
}
_SHELL: Final = "sh"
_ABSOLUTE: Final = re.compile(r"(?<![\w.$}/:-])/(?:work|home|root|tmp|Users|mnt|opt)/\S*")
_HOST: Final = re.compile(r"https?://(?!127\.0\.0\.1|localhost)[\w.-]+")


class Reader:
    """Follows pages in one sitting: a page that goes on after another reads that one first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._terminals: dict[str, Terminal] = {}
        self._read: dict[str, BlockFailed | None] = {}

    def follow(self, name: str) -> None:
        """Run a page's blocks in order, once; raises again what went wrong the first time."""
        page = PAGES[name]
        if page.after:
            self.follow(page.after)
        if name not in self._read:
            self._read[name] = self._attempt(page)
        failed = self._read[name]
        if failed is not None:
            raise failed

    def close(self) -> None:
        """End what the pages started."""
        for terminal in set(self._terminals.values()):
            terminal.close()

    def _attempt(self, page: Page) -> BlockFailed | None:
        terminal = self._terminal(page)
        try:
            for block in page.marked:
                terminal.do(block)
        except BlockFailed as error:
            return error
        return None

    def _terminal(self, page: Page) -> Terminal:
        if page.after:
            return self._terminals.setdefault(page.name, self._terminals[page.after])
        home, state = (self._folder / page.name.replace("/", "-") / part for part in ("in", "by"))
        home.mkdir(parents=True)
        state.mkdir()
        return self._terminals.setdefault(page.name, Terminal(home, state))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """One reader for all pages, so that the network is started once."""
    found = Reader(tmp_path_factory.mktemp("reader"))
    try:
        yield found
    finally:
        found.close()


@pytest.mark.e2e
@pytest.mark.chain
@pytest.mark.engine
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", RUN)
def test_the_marked_blocks_of_a_page_run_as_they_stand(reader: Reader, name: str) -> None:
    """In an empty folder, in order, with real programs; what is shown as output was printed."""
    reader.follow(name)


def test_pages_run_against_the_tree_they_are_in(tmp_path: Path) -> None:
    """Not against the one that is installed; and nothing else of our environment comes along."""
    home, state = tmp_path / "in", tmp_path / "by"
    home.mkdir()
    state.mkdir()
    code = "import os, pinaivu; print(pinaivu.__file__); print(sorted(os.environ))"
    Terminal(home, state).do(Block("sh", f"python -c '{code}'\n", "run", None))
    where, names = (state / "output.txt").read_text("utf-8").splitlines()
    assert Path(where) == ROOT / "pinaivu" / "__init__.py"
    shells_own = {"OLDPWD", "PWD", "SHLVL", "_"}
    assert set(ast.literal_eval(names)) - shells_own == {"HOME", "LANG", "PATH", "PYTHONPATH"}


def test_readme_is_run() -> None:
    """Whatever else is: the first page a stranger reads."""
    assert RUN[0] == "README.md"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_with_shell_blocks_is_run_or_listed_with_a_reason(name: str) -> None:
    """So that no page's commands rot because nobody marked them."""
    has_shell = any(block.language == _SHELL for block in PAGES[name].blocks)
    assert (has_shell and name not in RUN) == (name in NOT_RUN)
    assert all(block.language == _SHELL for block in PAGES[name].marked if block.mark == "run")


@pytest.mark.parametrize("name", PAGES)
def test_every_internal_link_leads_to_a_file_and_a_heading(name: str) -> None:
    """Relative targets exist in the tree; `#…` is a heading of the page named."""
    folder = (ROOT / name).parent
    for link in PAGES[name].links:
        target, _, anchor = link.partition("#")
        path = (folder / target).resolve() if target else ROOT / name
        assert path.exists(), f"{name}: {link} leads nowhere"
        if anchor:
            assert anchor in PAGES[str(path.relative_to(ROOT))].anchors, f"{name}: {link}"


@pytest.mark.parametrize("name", PAGES)
def test_no_page_names_a_machine(name: str) -> None:
    """No absolute path of somebody's machine, no host to fetch things from."""
    text = PAGES[name].text
    assert _ABSOLUTE.findall(text) == []
    assert _HOST.findall(text) == []


@pytest.mark.parametrize("name", [name for name in PAGES if name != "docs/bundle-coverage.md"])
def test_every_picture_is_small_enough_to_clone(name: str) -> None:
    """A page's pictures are under 200 kB each."""
    folder = (ROOT / name).parent
    pictures = [folder / link for link in PAGES[name].links if link.endswith((".png", ".svg"))]
    assert all(path.stat().st_size < 200_000 for path in pictures)
