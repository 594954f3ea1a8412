"""`pinaivu keys` and `grants`, as a shell sees them: nothing is lost, nothing secret is kept."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy.exc import DatabaseError
from sqlmodel import delete, update

from pinaivu.chain.deployment import Deployment
from pinaivu.cli.main import cli
from pinaivu.encoding import to_hex
from pinaivu.errors import Misconfigured, PinaivuError
from pinaivu.keys import checksum
from pinaivu.store.database import StorageFailed, open_database
from pinaivu.store.gateway import ActRow
from pinaivu.store.gateway_keys import find_key, hash_key
from pinaivu.store.gateway_policy import Policy
from pinaivu.terms import Terms
from tests.unit.gateway_facts import DOMAIN, OTHER, PAYER, grant

NODE = "0x" + "ab" * 20


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/gateway.db"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def done(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def keys(database: str, command: str, *arguments: str) -> str:
    return done("keys", command, "--database", database, *arguments)


def new_key(database: str, *arguments: str) -> tuple[str, str]:
    key_id, secret = keys(
        database, "create", "--payer", checksum(PAYER.address), *arguments
    ).split()
    return key_id, secret


def policy(database: str, key_id: str) -> Policy:
    store = open_database(database, "gateway")
    try:
        return find_key(store, key_id).policy
    finally:
        store.close()


def test_key_has_the_limits_it_was_made_with_and_changed_to(database: str) -> None:
    """`none` takes a limit away; what isn't named stays."""
    given = ("--requests-per-minute", "60", "--streams", "4", "--monthly-units", "900")
    terms = ("--max-cost-units", "50", "--auction", "standing", "--deny", NODE)
    key_id, _ = new_key(database, *given, *terms, "--model", "a", "--model", "b")
    assert policy(database, key_id) == Policy(
        models=("a", "b"),
        requests_per_minute=60,
        streams=4,
        monthly_units=900,
        terms=Terms(max_cost_units=50, auction="standing", deny=[NODE]),
    )
    keys(database, "limit", key_id, "--streams", "none", "--daily-tokens", "7", "--model", "none")
    keys(database, "limit", key_id, "--auction", "none", "--max-price-out", "5")
    assert policy(database, key_id) == Policy(
        requests_per_minute=60,
        daily_tokens=7,
        monthly_units=900,
        terms=Terms(max_cost_units=50, max_price_out=5, deny=[NODE]),
    )
    shown = keys(database, "show", key_id)
    for line in (
        "requests_per_minute  60",
        "max_cost_units       50",
        f"deny                 {NODE}",
    ):
        assert line in shown
    assert "streams" not in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("--streams", "-1"),
        ("--streams", "many"),
        ("--scope", "everything"),
        ("--deny", "0x12"),
        ("--scope", "admin", "--scope", "usage", "--payer"),
        ("--scope", "admin"),
    ],
)
def test_limits_that_make_no_sense_make_no_key(database: str, arguments: tuple[str, ...]) -> None:
    payer = checksum(PAYER.address)
    result = run("keys", "create", "--database", database, *arguments, "--payer", payer)
    assert result.exit_code
    assert "  sk-pnv-" not in result.output
    assert keys(database, "list") == ""


def test_rotated_key_has_a_new_secret_and_the_old_limits(database: str, tmp_path: Path) -> None:
    key_id, secret = new_key(database, "--daily-tokens", "5")
    same_id, new_secret = keys(database, "rotate", key_id).split()
    assert same_id == key_id
    assert new_secret != secret
    assert policy(database, key_id) == Policy(daily_tokens=5)
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert hash_key(new_secret) in stored
    assert new_secret.encode() not in stored
    keys(database, "revoke", key_id)
    assert isinstance(
        run("keys", "rotate", "--database", database, key_id).exception, Misconfigured
    )


def test_every_act_is_logged_with_who_and_what_and_no_secret(database: str) -> None:
    key_id, secret = new_key(database, "--daily-tokens", "5")
    keys(database, "limit", key_id, "--daily-tokens", "6")
    _, rotated = keys(database, "rotate", key_id).split()
    keys(database, "revoke", key_id)
    keys(database, "revoke", key_id)
    other, _ = new_key(database)
    log = keys(database, "log")
    acts = [line.split("  ")[2:4] for line in log.splitlines()]
    names = ("create key", "limit key", "rotate key", "revoke key")
    assert acts == [*([name, key_id] for name in names), ["create key", other]]
    assert all("  cli:" in line for line in log.splitlines())
    assert '{"daily_tokens":6}' in log
    assert keys(database, "log", other).count("\n") == 1
    for one in (secret, rotated):
        assert one.removeprefix("sk-pnv-")[:12] not in log


def test_acts_are_only_ever_added(url_of: Any) -> None:
    """By the database itself, SQLite and PostgreSQL."""
    url = url_of("gateway")
    key_id, _ = new_key(url)
    store = open_database(url, "gateway")
    for change in (delete(ActRow), update(ActRow).values(who="nobody")):
        refused = pytest.raises((StorageFailed, DatabaseError), match="only ever added")
        with refused, store.begin() as session:
            session.execute(change)
    store.close()
    assert key_id in keys(url, "log")


@pytest.mark.parametrize("command", ["show", "limit", "revoke", "rotate"])
def test_key_that_is_none_is_said_with_what_to_do(database: str, command: str) -> None:
    more = ("--streams", "1") if command == "limit" else ()
    result = run("keys", command, "--database", database, "key-nobody", *more)
    assert isinstance(result.exception, Misconfigured)
    assert "list the keys" in str(result.exception)


# Grants


@pytest.fixture
def deployment(tmp_path: Path) -> str:
    """Contracts of the test domain."""
    names = set(Deployment.__struct_fields__) - {"chain_id", "block", "holders"}
    addresses: dict[str, Any] = dict.fromkeys(names, os.urandom(20))
    addresses["settlement"] = DOMAIN.settlement
    found = Deployment(chain_id=DOMAIN.chain_id, block=0, **addresses)
    path = tmp_path / "deployment.json"
    path.write_bytes(found.to_json())
    return str(path)


def test_grant_is_taken_in_listed_and_forgotten(
    database: str, deployment: str, tmp_path: Path
) -> None:
    file = tmp_path / "grant.json"
    file.write_text(json.dumps(grant().to_json()))
    place = ("--database", database, "--deployment", deployment)
    digest = done("grants", "add", *place, str(file)).strip()
    assert digest == to_hex(grant().digest(DOMAIN))
    assert done("grants", "add", *place, str(file)).strip() == digest
    (line,) = done("grants", "list", *place).splitlines()
    assert line.startswith(f"{digest}  payer {checksum(PAYER.address)}")
    done("grants", "remove", *place, digest)
    assert done("grants", "list", *place) == ""
    assert isinstance(run("grants", "remove", *place, digest).exception, Misconfigured)
    assert [line.split("  ")[2] for line in keys(database, "log").splitlines()] == [
        "add grant",
        "remove grant",
    ]


def test_what_is_no_grant_of_its_payer_is_not_taken_in(
    database: str, deployment: str, tmp_path: Path
) -> None:
    forged = type(grant()).by(OTHER, DOMAIN, grant().message)
    for text in ("", "{}", json.dumps(forged.to_json())):
        file = tmp_path / "grant.json"
        file.write_text(text)
        result = run("grants", "add", "--database", database, "--deployment", deployment, str(file))
        assert isinstance(result.exception, PinaivuError)
        assert "grant" in str(result.exception)
    assert done("grants", "list", "--database", database, "--deployment", deployment) == ""
