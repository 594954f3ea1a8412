"""Configuration: file, environment, and what is said of a wrong one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.config import load_config
from pinaivu.errors import Misconfigured

GOOD: dict[str, Any] = {
    "p2p_listen": ["/ip4/127.0.0.1/tcp/0"],
    "database": "sqlite:///g.db",
    "gateway_key_file": "keys/gateway.hex",
    "peer_key_file": "/etc/peer.hex",
    "rpc_url": "http://127.0.0.1:8545",
    "deployment_file": "deployment.json",
    "logs": [{"log_id": "0x" + "11" * 32, "url": "http://127.0.0.1:8081"}],
    "models": [{"name": "m", "tokenizer_file": "t.json", "chat_template_file": "t.jinja"}],
}


def written(folder: Path, document: object) -> Path:
    path = folder / "gateway.json"
    path.write_text(json.dumps(document))
    return path


def test_relative_paths_are_the_files_own(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, GOOD), {})
    assert config.gateway_key_file == tmp_path / "keys/gateway.hex"
    assert config.peer_key_file == Path("/etc/peer.hex")
    assert config.models[0].tokenizer_file == tmp_path / "t.json"
    assert config.limits.content_hours == 24


def test_toml_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    tables = {name: GOOD[name][0] for name in ("logs", "models")}
    lines = [f"{name} = {json.dumps(value)}" for name, value in GOOD.items() if name not in tables]
    lines += ["[limits]", "max_in_flight = 3"]
    for name, table in tables.items():
        lines += [f"[[{name}]]", *(f'{k} = "{v}"' for k, v in table.items())]
    path.write_text("\n".join(lines))
    config = load_config(path, {})
    assert config.limits.max_in_flight == 3
    assert config.models[0].name == "m"


def test_environment_overrides_the_file(tmp_path: Path) -> None:
    variables = {
        "PINAIVU_GATEWAY_LISTEN": "127.0.0.1:9",
        "PINAIVU_GATEWAY_P2P_LISTEN": '["/ip4/127.0.0.1/tcp/9"]',
        "UNRELATED": "x",
    }
    config = load_config(written(tmp_path, GOOD), variables)
    assert (config.listen, config.p2p_listen) == ("127.0.0.1:9", ["/ip4/127.0.0.1/tcp/9"])


@pytest.mark.parametrize(
    ("document", "variables", "said"),
    [
        (GOOD | {"logs": [{"log_id": "0x11", "url": "http://a"}]}, {}, "log_id"),
        (GOOD | {"logs": []}, {}, "logs"),
        (GOOD | {"all_logs": True}, {}, "logs"),
        (GOOD | {"logs": GOOD["logs"] * 2}, {}, "twice"),
        (GOOD | {"colour": "red"}, {}, "colour"),
        (GOOD | {"models": []}, {}, "models"),
        ([1], {}, "no table"),
        (GOOD, {"PINAIVU_GATEWAY_P2P_LISTEN": "[1"}, "no JSON"),
        (GOOD | {"limits": {"max_body_bytes": 1}}, {}, "max_body_bytes"),
    ],
)
def test_wrong_settings_are_named(
    tmp_path: Path, document: object, variables: dict[str, str], said: str
) -> None:
    with pytest.raises(Misconfigured, match=said):
        load_config(written(tmp_path, document), variables)


def test_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"can't read .*nowhere\.toml"):
        load_config(tmp_path / "nowhere.toml", {})
    broken = tmp_path / "broken.toml"
    broken.write_text("= 1")
    with pytest.raises(Misconfigured, match="neither TOML nor"):
        load_config(broken, {})


def test_program_ends_with_its_reason_in_one_line(tmp_path: Path) -> None:
    """Exit code 2, no traceback."""
    path = written(tmp_path, GOOD)
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "--config", str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("gateway: ")
    assert "keys/gateway.hex" in line
