"""`pinaivu roles`: who can do what with a deployment, after how long, and what is not as meant."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import click

from pinaivu.chain.deployment import Deployment
from pinaivu.chain.role_check import RoleReport, Row, check_roles
from pinaivu.chain.rpc import HttpRpc
from pinaivu.cli.place import network_options, open_folder
from pinaivu.errors import Misconfigured
from pinaivu.keys import checksum
from pinaivu.local.ports import keep_ports

RPC_VARIABLE = "PINAIVU_RPC_URL"
_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s"))


@click.command("roles")
@network_options
@click.option("--on", "name", help="A public network by name, such as sepolia.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
def command(
    network: Path, rpc: str | None, deployment: Path | None, name: str | None, *, as_json: bool
) -> None:
    """Compare a deployment on its chain with what it is meant to be, without any key.

    Reads code, wiring, delays and every role from the chain. The RPC URL is --rpc, else the
    environment's PINAIVU_RPC_URL, else that of the local network. Exit codes: 0 all as meant, 1
    something is not (in red), 2 it or a part of it couldn't be checked, 3 wrong usage.
    """
    meant = Deployment.named(name) if name else _load(network, deployment)
    with HttpRpc(rpc or _url(network, name or deployment)) as endpoint:
        report = check_roles(endpoint, meant)
    click.echo(_to_json(report) if as_json else _to_text(report))
    raise click.exceptions.Exit(_exit_code(report))


def _exit_code(report: RoleReport) -> int:
    if report.deviations:
        return 1
    return 2 if report.unchecked else 0


def _load(network: Path, deployment: Path | None) -> Deployment:
    return Deployment.load(deployment or open_folder(network).deployment)


def _url(network: Path, elsewhere: str | Path | None) -> str:
    given = os.environ.get(RPC_VARIABLE)
    if given:
        return given
    if elsewhere:
        raise Misconfigured(f"say how to reach the chain: --rpc URL, or set {RPC_VARIABLE}")
    return f"http://127.0.0.1:{keep_ports(open_folder(network).ports).chain}"


def _to_text(report: RoleReport) -> str:
    lines = [f"chain {report.chain_id}, block {report.block}", ""]
    if report.times is not None:
        times = asdict(report.times).items()
        lines += [f"{name.removesuffix('_ms'):17} {_duration(ms)}" for name, ms in times]
    for role, member in dict.fromkeys((row.role, row.member) for row in report.rows):
        lines += ["", f"{role}: {checksum(member)}"]
        rows = [row for row in report.rows if (row.role, row.member) == (role, member)]
        lines += [f"  {_row(row)}" for row in rows]
    lines += ["", *(f"note: {note}" for note in report.notes)]
    lines += [click.style(f"NOT CHECKED: {what}", fg="yellow") for what in report.unchecked]
    lines += [click.style(f"NOT AS MEANT: {what}", fg="red") for what in report.deviations]
    if _exit_code(report) == 0:
        lines.append("as meant: code, wiring, times, members, functions and delays")
    return "\n".join(lines)


def _row(row: Row) -> str:
    call = f"{row.contract}.{row.function}"
    return (
        f"{call:40} announced {_duration(row.delay_ms):>5}, then {_duration(row.built_in_ms):>5}"
        f"  {row.meaning}"
    )


def _duration(ms: int) -> str:
    if ms == 0:
        return "0"
    size, unit = next((size, unit) for size, unit in _UNITS if ms % size == 0 and ms >= size)
    return f"{ms // size} {unit}"


def _to_json(report: RoleReport) -> str:
    def shown(value: object) -> str:
        assert isinstance(value, bytes)
        return checksum(value)

    return json.dumps(asdict(report), indent=2, default=shown)
