"""`pinaivu`: the one command, with subcommands loaded when they are asked for."""

import importlib
import sys
from typing import Final

import click

from pinaivu import __version__
from pinaivu.errors import PinaivuError

_COMMANDS: Final = {
    "up": "Start a whole network on this machine and send a first request through it.",
    "gateway": "Run a private gateway of your own, or register an operator's on chain.",
    "verify": "Check a request: a bundle file, or a request id.",
    "standings": "Recompute from the log's receipts what an auction knew of its nodes.",
    "omitted": "Show offers that one auction's book held and a later one lacked while firm.",
    "submit": "Settle a published batch with nothing but a copy of it and a gas key.",
    "keys": "Make, limit, rotate and revoke API keys of a gateway; who did what.",
    "grants": "Take in the payers' permissions that a gateway spends under.",
    "wallet": "Deposit, grant, withdraw and look at balances.",
    "roles": "Who can do what with a deployment after how long, and is it as it should be?",
    "verdict": "Judge an enclave's boot as one of the verifiers; activate a log's epoch.",
    "node": "Register a GPU node, bond it, see what it earned, have it paid out.",
    "report": "Report a fault that signatures prove, for a share of what it costs.",
}


class _Lazy(click.Group):
    """Loads a subcommand's module on use: `--help` stays fast."""

    def list_commands(self, _context: click.Context) -> list[str]:
        """Subcommands in the order people meet them."""
        return list(_COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        """The subcommand, imported now."""
        if name not in _COMMANDS:
            return None
        module = importlib.import_module(f"pinaivu.cli.{name}")
        command: click.Command = module.command
        return command

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        """List them without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pinaivu")
def cli() -> None:
    """LLM inference bought on an open market and proven request by request.

    Start with `pinaivu up`: it brings up a whole network on this machine, with a real small model,
    sends a prompt, shows receipt, settlement and every step of the verification, and leaves you an
    API key for any OpenAI SDK.
    """


def main() -> None:
    """Run; errors made on purpose are one line on stderr and exit code 2."""
    try:
        sys.exit(cli(standalone_mode=False) or 0)  # click returns an Exit's code here
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(3)
    except PinaivuError as error:
        click.echo(f"pinaivu: {error}", err=True)
        sys.exit(2)
