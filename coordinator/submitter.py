"""Submits published batches to the chain: a gas key and a log's URL are all it takes.

    python -m coordinator.submitter --log-url URL --rpc URL --deployment FILE --key FILE

It is trusted with nothing: a batch is signed by the enclave and checked by the contract, so anybody
can run this. A batch that was settled meanwhile, by whomever, is left alone; one that a
reorganisation dropped is sent again.
"""

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from pinaivu.batch_copies import BatchCopy
from pinaivu.chain.calls import Calls
from pinaivu.chain.client import ChainClient
from pinaivu.chain.deployment import Deployment
from pinaivu.chain.rpc import HttpRpc
from pinaivu.chain.transactor import Transactor
from pinaivu.encoding import from_hex, parse_json
from pinaivu.errors import InvalidEncoding, PinaivuError, TransportFailure
from pinaivu.keyfiles import load_key

_LOOK_EVERY_S = 0.25
_logger = logging.getLogger(__name__)


class LogUnavailable(TransportFailure):
    """The log's public server gives no usable answer."""


class Submitter:
    """Settles whatever one log has published and the chain does not have yet."""

    def __init__(
        self, http: httpx.Client, log_url: str, client: ChainClient, sender: Transactor
    ) -> None:
        self._http = http
        self._url = log_url.rstrip("/")
        self._client = client
        self._calls = Calls(client.deployment)
        self._sender = sender

    def step(self, log_id: bytes) -> int:
        """Submit what is next, if anything; the number of batches settled."""
        anchor = self._client.anchor(log_id)
        settled = 0
        for copy in self._published(anchor.sequence):
            if copy.batch.sequence != anchor.sequence + 1:
                break
            self._sender.send(self._calls.settle(copy.signed, copy.consistency, anchor))
            _logger.info("settled batch %d", copy.batch.sequence)
            anchor = self._client.anchor(log_id)
            settled += 1
        return settled

    def _published(self, after: int) -> list[BatchCopy]:
        published = self._get(f"/batches?after={after}")
        try:
            return [BatchCopy.from_json(entry) for entry in published["batches"]]
        except (KeyError, TypeError, InvalidEncoding) as error:
            raise LogUnavailable(f"{self._url}/batches gave no batches: {error!r}") from error

    def log_id(self) -> bytes:
        """The id of the log behind the URL."""
        said = self._get("/attestation")
        if not isinstance(said, dict):
            raise LogUnavailable(f"{self._url}/attestation gave no object")
        return from_hex(said.get("log_id"), 32)

    def _get(self, path: str) -> Any:
        try:
            answer = self._http.get(self._url + path)
            answer.raise_for_status()
            return parse_json(answer.content)
        except (httpx.HTTPError, InvalidEncoding) as error:
            raise LogUnavailable(f"{self._url}{path}: {error or type(error).__name__}") from error


def follow(submitter: Submitter, sleep: Callable[[float], None]) -> None:
    """For ever: submit as batches appear; trouble is waited out."""
    log_id = None
    while True:
        try:
            log_id = log_id or submitter.log_id()
            submitter.step(log_id)
        except PinaivuError as error:
            _logger.warning("waiting: %s", error)
            sleep(1.0)
        sleep(_LOOK_EVERY_S)


def main() -> int:
    """Run until ended."""
    parser = argparse.ArgumentParser(prog="python -m coordinator.submitter", description=__doc__)
    parser.add_argument("--log-url", required=True)
    parser.add_argument("--rpc", required=True)
    parser.add_argument("--deployment", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True, help="file with the gas key, as hex")
    arguments = parser.parse_args()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    deployment = Deployment.load(arguments.deployment)
    rpc = HttpRpc(arguments.rpc)
    key = load_key(arguments.key, os.urandom)
    sender = Transactor(rpc, deployment.chain_id, key)
    with httpx.Client(timeout=10) as http:
        submitter = Submitter(http, arguments.log_url, ChainClient(rpc, deployment), sender)
        follow(submitter, time.sleep)
    return 0


if __name__ == "__main__":
    sys.exit(main())
