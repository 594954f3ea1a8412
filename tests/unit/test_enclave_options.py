"""Boot's command line: what it must name, and what production boot must not know."""

import json
from pathlib import Path

import pytest

from enclave import boot
from enclave.options import CONTRACTS, BootOptions, boot_parser, parse_boot_options
from pinaivu.errors import Misconfigured
from pinaivu.manifest import local_development_parameters

PARAMETERS = local_development_parameters("http://127.0.0.1:1")
ADDRESSES = {name: f"0x{number:040x}" for number, name in enumerate(CONTRACTS, 1)}


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    path = tmp_path / "parameters.json"
    path.write_text(json.dumps(PARAMETERS.to_json(), indent=2))
    return [
        *("--parameters", str(path), "--chain-id", "31337"),
        *("--contracts", json.dumps(ADDRESSES), "--log-id", "0x" + "cd" * 32),
    ]


def parsed(*arguments: str) -> BootOptions:
    return parse_boot_options(boot_parser("boot"), arguments)[0]


def test_everything_is_parsed_and_the_command_kept_as_it_is(arguments: list[str]) -> None:
    options = parsed(*arguments, "--", "coordinator", "--log-id", "x", "--", "y")
    assert options.command == ("coordinator", "--log-id", "x", "--", "y")
    assert options.parameters == PARAMETERS
    assert options.deployment.chain_id == 31337
    assert options.deployment.settlement == (1).to_bytes(20)
    assert options.deployment.model_registry == (5).to_bytes(20)
    assert options.deployment.log_id == b"\xcd" * 32


MISTAKES = {
    "contracts that are no JSON": ("--contracts", "x"),
    "a contract missing": ("--contracts", json.dumps(dict.fromkeys(CONTRACTS[1:], "0x"))),
    "a contract too many": ("--contracts", json.dumps({**ADDRESSES, "x": ADDRESSES["settlement"]})),
    "an address in checksum case": (
        "--contracts",
        json.dumps({**ADDRESSES, "settlement": "0x" + "Ab" * 20}),
    ),
    "a log id too short": ("--log-id", "0xcd"),
    "a parameters file that is none": ("--parameters", "no-such-file"),
    "a parameters file of something else": ("--parameters", __file__),
}


@pytest.mark.parametrize("option", MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_named_by_their_option(arguments: list[str], option: tuple[str, str]) -> None:
    with pytest.raises(Misconfigured, match=option[0]):
        parsed(*arguments, *option, "--", "coordinator")


@pytest.mark.parametrize("rest", [(), ("--",), ("coordinator",)])
def test_a_missing_command_is_a_usage_error(arguments: list[str], rest: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(*arguments, *rest)
    assert ended.value.code == 2


@pytest.mark.parametrize("option", ["--simulated", "--simulator", "--rpc", "--nsm", "--device"])
def test_production_boot_knows_no_option_for_another_module(
    arguments: list[str], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        boot.main([*arguments, option, "x", "--", "coordinator"])
    assert ended.value.code == 2
    assert option in capsys.readouterr().err
