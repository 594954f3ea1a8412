"""What a patch of a library refuses, and that the installed library is patched."""

from collections.abc import Callable, Iterator

import pytest

from pinaivu.p2p.patches import PATCHES, WANTED, PatchRefused, patch_libp2p
from pinaivu.p2p.patches.pins import Patch, apply, source_digest


class Library:
    """Stands for a class of the library."""

    def answer(self) -> int:
        """One."""
        return 1

    def other(self) -> int:
        """Two."""
        return 2


def better(_self: Library) -> int:
    return 42


def a_patch(name: str = "answer", source: str | None = None) -> Patch:
    return Patch(Library, name, source or source_digest(vars(Library)[name]), better)


@pytest.fixture
def library() -> Iterator[None]:
    before = dict(vars(Library))
    yield
    for name in ("answer", "other"):
        setattr(Library, name, before[name])


@pytest.mark.usefixtures("library")
def test_a_patch_is_in_force_once_applied_and_stays_so() -> None:
    patch = a_patch()
    assert not patch.in_force
    for _ in range(2):
        apply([patch], found="1", wanted="1")
        assert patch.in_force
        assert Library().answer() == 42


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("found", "patches"),
    [
        ("2", lambda: [a_patch()]),
        ("1", lambda: [a_patch(), a_patch("other", "0" * 16)]),
        ("1", lambda: [a_patch(), a_patch("missing", "0" * 16)]),
    ],
    ids=["version", "text", "name"],
)
def test_another_library_is_left_as_it_is(found: str, patches: Callable[[], list[Patch]]) -> None:
    """Also where only one of the patches doesn't fit."""
    with pytest.raises(PatchRefused):
        apply(patches(), found=found, wanted="1")
    assert (Library().answer(), Library().other()) == (1, 2)


def test_the_installed_library_is_the_one_that_is_patched() -> None:
    """This fails with the first other version: then read the patches again, or drop them."""
    patch_libp2p()
    assert all(patch.in_force for patch in PATCHES)
    assert WANTED == "0.8.1"
