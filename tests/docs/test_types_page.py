"""docs/types.md says what the code does: type strings, hashes, codes, tags, parameters."""

from typing import Final

import pytest

from pinaivu.encoding import Tag
from pinaivu.manifest import Manifest, Parameters
from pinaivu.typed_data import Message, schema
from tests.docs.pages import ROOT
from tests.vectors.make_typed_data import TYPES

PAGE: Final = (ROOT / "docs" / "types.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("message", TYPES, ids=lambda cls: cls.__name__)
def test_every_type_string_and_hash_is_the_codes_own(message: type[Message]) -> None:
    """The page is enough to sign and verify with."""
    of = schema(message)
    own = of.type_string.partition(")")[0] + ")"
    assert f"\n{own}\n" in PAGE
    assert f"| `{of.solidity}` | `0x{of.type_hash.hex()}` |" in PAGE


@pytest.mark.parametrize("tag", Tag, ids=lambda tag: tag.name)
def test_every_tag_is_named(tag: Tag) -> None:
    """A hash without its tag can't be recomputed."""
    assert f"`{tag.rstrip(bytes(1)).decode()}`" in PAGE


@pytest.mark.parametrize("document", [Manifest, Parameters], ids=lambda cls: cls.__name__)
def test_every_member_of_manifest_and_parameters_is_named(
    document: type[Manifest] | type[Parameters],
) -> None:
    """Both are digests on chain: a member left out would give another one."""
    assert [name for name in document.__struct_fields__ if f"`{name}`" not in PAGE] == []
