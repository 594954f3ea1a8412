"""The configuration: what is read, and how wrong ones are named."""

import json
from pathlib import Path
from typing import Any

import pytest

from node.config import Config, engine_spec, load_config
from node.errors import BadConfig
from node.pricing import FixedPrice, IdleDiscount
from pinaivu.codes import Feature

LOG = {"log_id": "0x" + "11" * 32, "url": "http://127.0.0.1:8081"}
LLAMA = {"kind": "llamacpp", "gguf": "models/m.gguf", "slots": 3, "context_tokens": 1024}
MODEL = {"name": "m", "files": "models", "price_out": 400_000, "engine": LLAMA}
GOOD: dict[str, Any] = {
    "state": "state",
    "chain": {"rpc": "http://127.0.0.1:8545", "deployment": "deployment.json"},
    "logs": [LOG],
    "gateways": ["/ip4/127.0.0.1/tcp/4003/p2p/16Uiu2HA"],
    "models": [MODEL],
}


def _load(directory: Path, content: dict[str, Any]) -> Config:
    path = directory / "node.json"
    path.write_text(json.dumps(content))
    return load_config(path)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    """A configuration can be moved together with what it names."""
    config = _load(tmp_path, GOOD)
    assert config.state_path == tmp_path / "state"
    assert config.node_key_path == tmp_path / "state" / "node.key"
    assert config.peer_key_path == tmp_path / "state" / "peer.key"
    assert config.database_url == f"sqlite:///{tmp_path}/state/node.db"
    assert config.logs[0].id == b"\x11" * 32
    assert _load(tmp_path, GOOD | {"node_key": "/k"}).node_key_path == Path("/k")


def test_the_engine_is_built_with_the_environment_it_may_see(tmp_path: Path) -> None:
    """And with nothing else."""
    config = _load(tmp_path, GOOD)
    spec = engine_spec(config, config.models[0], {"PATH": "/bin"})
    assert (spec.slots, spec.context_tokens, spec.model) == (3, 1024, "m")
    assert str(tmp_path / "models/m.gguf") in spec.argv
    assert spec.env == {"PATH": "/bin"}


@pytest.mark.parametrize(("said", "takes"), [({}, True), ({"explore": False}, False)])
def test_exploration_jobs_are_taken_unless_declined(
    tmp_path: Path,
    said: dict[str, bool],
    takes: bool,  # noqa: FBT001
) -> None:
    """The bit stands on offers; what the engine can do stays as it was."""
    (model,) = _load(tmp_path, GOOD | {"models": [MODEL | said]}).models
    offered = model.offered(Feature.KIND_CHAT | Feature.TOOLS)
    assert bool(offered & Feature.EXPLORATION) == takes
    assert offered & ~Feature.EXPLORATION == Feature.KIND_CHAT | Feature.TOOLS


def test_an_attached_engine_says_what_it_can_do(tmp_path: Path) -> None:
    """No endpoint tells; chat it must be able to."""
    engine = {
        "kind": "attached", "url": "http://10.0.0.7:8000", "engine_name": "x", "slots": 8,
        "context_tokens": 4096, "features": ["tools", "continues"], "api_key_file": "engine.key",
    }  # fmt: skip
    (tmp_path / "engine.key").write_text("sk-secret\n")
    config = _load(tmp_path, GOOD | {"models": [MODEL | {"engine": engine}]})
    spec = engine_spec(config, config.models[0], {})
    assert spec.features == Feature.KIND_CHAT | Feature.TOOLS | Feature.CONTINUES
    assert (spec.url, spec.api_key, spec.model) == ("http://10.0.0.7:8000", "sk-secret", "x")
    assert "sk-secret" not in repr(spec)
    (tmp_path / "engine.key").unlink()
    with pytest.raises(BadConfig, match=r"engine\.key"):
        engine_spec(config, config.models[0], {})


def test_vllm_runs_in_its_own_environment(tmp_path: Path) -> None:
    """Its Python is named, its options pass through."""
    engine = {
        "kind": "vllm",
        "directory": "w",
        "python": "/v/python",
        "extra": ["--dtype", "x"],
    }
    config = _load(tmp_path, GOOD | {"models": [MODEL | {"engine": engine}]})
    spec = engine_spec(config, config.models[0], {})
    assert (spec.argv[0], spec.argv[-2:]) == ("/v/python", ("--dtype", "x"))


def test_the_pricing_follows_from_the_discount(tmp_path: Path) -> None:
    """Without one the price is fixed."""
    assert _load(tmp_path, GOOD).models[0].pricing == FixedPrice()
    cheaper = GOOD | {"models": [MODEL | {"idle_discount_ppm": 50_000}]}
    assert _load(tmp_path, cheaper).models[0].pricing == IdleDiscount(50_000)


def test_logs_and_gateways_may_be_left_to_the_chain(tmp_path: Path) -> None:
    """Ids alone, or whatever logs the chain knows."""
    found = {"logs": [{"log_id": LOG["log_id"]}], "gateways": ["0x" + "22" * 20]}
    config = _load(tmp_path, GOOD | found)
    assert config.logs[0].url is None
    assert not config.all_logs
    assert not config.chain.private_endpoints
    every = {name: value for name, value in GOOD.items() if name != "logs"} | {"all_logs": True}
    assert _load(tmp_path, every).logs == ()


ATTACHED = {"kind": "attached", "url": "u", "engine_name": "x", "slots": 1, "context_tokens": 1}


def test_an_attached_engine_serves_the_kinds_that_are_named(tmp_path: Path) -> None:
    """Chats, where nothing is said."""
    engine = ATTACHED | {"kinds": ["embedding"], "features": ["images"]}
    config = _load(tmp_path, GOOD | {"models": [MODEL | {"engine": engine}]})
    assert engine_spec(config, config.models[0], {}).features == (
        Feature.KIND_EMBEDDING | Feature.IMAGES
    )


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("misspelt", {"gatways": []}, "gatways"),
    ("no logs", {"logs": []}, r"\$\.logs"),
    ("logs and all", {"all_logs": True}, r"\$\.logs"),
    ("too many logs", {"logs": [LOG] * 9}, r"\$\.logs"),
    ("no gateway's address", {"gateways": ["0x12"]}, r"\$\.gateways\[0\]"),
    ("no id", {"logs": [LOG | {"log_id": "0x12"}]}, r"\$\.logs\[0\]\.log_id"),
    ("one log twice", {"logs": [LOG, LOG]}, "twice"),
    ("one model twice", {"models": [MODEL, MODEL]}, "twice"),
    ("for nothing", {"models": [MODEL | {"price_out": 0}]}, "price_out"),
    ("no measurement", {"models": [MODEL | {"measure": {"runs": 0}}]}, "runs"),
    ("no such engine", {"models": [MODEL | {"engine": {"kind": "magic"}}]}, "engine"),
    (
        "no such feature",
        {"models": [MODEL | {"engine": ATTACHED | {"features": ["telepathy"]}}]},
        "telepathy",
    ),
    (
        "no such kind",
        {"models": [MODEL | {"engine": ATTACHED | {"kinds": ["song"]}}]},
        "no kind 'song'",
    ),
]


@pytest.mark.parametrize(
    ("change", "says"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG]
)
def test_a_wrong_configuration_names_the_place(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    """Nothing is guessed and nothing ignored."""
    with pytest.raises(BadConfig, match=says):
        _load(tmp_path, GOOD | change)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """So is one that is no JSON."""
    with pytest.raises(BadConfig, match=r"nowhere\.json"):
        load_config(tmp_path / "nowhere.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(BadConfig, match=r"x\.json"):
        load_config(tmp_path / "x.json")
