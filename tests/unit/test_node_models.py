"""Model files against card and registry, and the wallet against the chain."""

from dataclasses import replace
from pathlib import Path

import pytest

from node.errors import NotRegistered, WrongModel
from node.journal import LogEarnings
from node.models import ModelFiles, load_files
from node.models import check_registered as check_model
from node.wallet import NodeKeys, check_registered, relayed_registration, totals
from pinaivu.chain.calls import Calls
from pinaivu.chain.deployment import Deployment
from pinaivu.chain.records import ModelRecord, NodeCredit
from pinaivu.keys import checksum, recover
from pinaivu.messages import PeerBinding
from pinaivu.model_card import ModelCard, ModelFile
from pinaivu.typed_data import digest
from tests.unit import node_support as n
from tests.unit.tiny_tokenizer import TEMPLATE, tiny_tokenizer_json


def _card() -> ModelCard:
    return ModelCard(
        files=(ModelFile("m.gguf", bytes(32)),),
        revision="1",
        quantization="Q4_1",
        tokenizer_digest=n.tokenizer().digest,
        context_tokens=2048,
    )


def _write(directory: Path, card: ModelCard | None = None) -> Path:
    (directory / "tokenizer.json").write_bytes(tiny_tokenizer_json())
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    (directory / "model_card.json").write_bytes((card or _card()).to_json())
    return directory


def _record(card: ModelCard) -> ModelRecord:
    return ModelRecord(card.fingerprint, card.tokenizer_digest, 1, card.context_tokens)


def test_files_that_belong_together_are_loaded(tmp_path: Path) -> None:
    """Tokenizer, template and card."""
    files = load_files(_write(tmp_path))
    assert files.card == _card()
    assert check_model("m", files, _record(files.card)) == _record(files.card)


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja", "model_card.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    """With the command that makes it."""
    (_write(tmp_path) / name).unlink()
    with pytest.raises(WrongModel, match=name):
        load_files(tmp_path)


def test_another_template_is_noticed(tmp_path: Path) -> None:
    """Prompts would be counted differently from the gateway's."""
    (_write(tmp_path) / "chat_template.jinja").write_text(TEMPLATE + " ")
    with pytest.raises(WrongModel, match="not those"):
        load_files(tmp_path)


def test_the_registry_decides_what_a_model_is(tmp_path: Path) -> None:
    """An unknown name, another tokenizer and another fingerprint each say what to do."""
    files = ModelFiles(n.tokenizer(), load_files(_write(tmp_path)).card)
    record = _record(files.card)
    with pytest.raises(WrongModel, match="registrar"):
        check_model("m", files, None)
    with pytest.raises(WrongModel, match="tokenizer"):
        check_model("m", files, replace(record, tokenizer_digest=bytes(32)))
    with pytest.raises(WrongModel, match="fingerprint"):
        check_model("m", files, replace(record, fingerprint=bytes(32)))


KEYS = NodeKeys(signing=n.NODE, peer=n.NODE_PEER)


def test_a_registered_node_may_start() -> None:
    """With the peer key that the chain knows."""
    assert check_registered(KEYS, n.chain()).node == n.NODE.address


def test_an_unregistered_node_is_told_the_command() -> None:
    """Also one whose peer key is another than the registered one."""
    with pytest.raises(NotRegistered, match="pinaivu node register"):
        check_registered(NodeKeys(signing=n.STRANGER, peer=n.NODE_PEER), n.chain())
    with pytest.raises(NotRegistered, match=n.peer_of(n.NODE_PEER)):
        check_registered(NodeKeys(signing=n.NODE, peer=n.STRANGER), n.chain())


def test_the_peer_key_signs_that_it_belongs_to_the_node() -> None:
    """As the registry demands it."""
    binding = PeerBinding(
        owner=n.NODE.address, role=2, peer_x=n.NODE_PEER.point[:32], peer_y=n.NODE_PEER.point[32:]
    )
    assert recover(digest(n.DOMAIN, binding), KEYS.binding(n.DOMAIN)) == n.NODE_PEER.address


def test_a_registration_can_be_sent_by_somebody_else() -> None:
    """The node signs it with the registry's next nonce and pays no gas."""
    names = set(Deployment.__struct_fields__) - {"chain_id", "block", "holders"}
    places = {name: bytes([number]) * 20 for number, name in enumerate(names, 1)}
    calls = Calls(Deployment(chain_id=n.DOMAIN.chain_id, block=0, **places))  # type: ignore[arg-type]

    class Nonces:
        def registration_nonce(self, registry: str, owner: bytes) -> int:
            assert (registry, owner) == ("node_registry", n.NODE.address)
            return 7

    call = relayed_registration(KEYS, b"\x61" * 20, n.DOMAIN, calls, Nonces(), n.NOW)
    assert call.to == places["node_registry"]
    assert (7).to_bytes(32) in call.data
    assert n.NODE_PEER.point[:32] in call.data


def test_money_is_added_up_from_receipts_and_chain() -> None:
    """Earned by running totals, so that receipts that never came count too."""
    chain = n.chain()
    chain.credits = NodeCredit(credit=40, lifetime=100)
    earnings = [LogEarnings(n.LOG, 3, 1, 90, 120), LogEarnings(b"\x12" * 32, 1, 0, 5, 5)]
    found = totals(n.NODE.address, earnings, chain)
    assert (found.earned, found.credited, found.paid) == (125, 100, 60)
    assert (found.unsettled, found.withdrawable, found.missing_receipts) == (25, 40, 1)


def test_keys_do_not_show() -> None:
    """Neither of the two."""
    assert n.NODE.secret.hex() not in repr(KEYS)
    assert checksum(n.NODE.address) in repr(KEYS)
