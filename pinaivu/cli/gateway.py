"""`pinaivu gateway`: what a gateway's operator does. The service itself is `python -m gateway`."""

import click

from pinaivu.cli.gateway_register import register


@click.group("gateway")
def command() -> None:
    """Register a gateway on chain.

    The gateway itself runs as `python -m gateway --config FILE`; docs/gateway-operator.md has a
    configuration.
    """


command.add_command(register)
