"""The log operator at boot: check the attestation, have it vouched for, activate the epoch.

Here the attestation is SIMULATED and one local key vouches for it; the contract that believes that
key refuses to exist on any chain but a local one.
"""

import time
import warnings
from ssl import PROTOCOL_TLS_CLIENT, SSLContext
from typing import Any, Final

import httpx

from pinaivu.attestation.policy import Live, binding_of
from pinaivu.attestation.simulated import (
    SIMULATED_MEASUREMENT,
    SimulatedAttestation,
    SimulatedDocumentWarning,
    verify_simulated,
)
from pinaivu.attestation.verdicts import verdict_on
from pinaivu.chain.calls import Calls
from pinaivu.chain.quorum import seen_block, trust_in
from pinaivu.errors import TransportFailure
from pinaivu.keys import SecretKey
from pinaivu.local.chain import LocalChain
from pinaivu.manifest import Manifest, Parameters
from pinaivu.typed_data import Signed

_NO_TLS: Final = SSLContext(PROTOCOL_TLS_CLIENT)
"""Trusts nobody: services of this machine speak HTTP, and who polls must not load trust roots."""


class NotAnswering(TransportFailure):
    """A service of the network gives no usable answer yet."""


def read_json(url: str) -> Any:
    """GET a JSON document; `NotAnswering` for everything else."""
    try:
        answer = _get(url)
        answer.raise_for_status()
        return answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise NotAnswering(f"{url}: {error or type(error).__name__}") from error


def _get(url: str) -> httpx.Response:
    return httpx.get(url, timeout=5, verify=_NO_TLS, trust_env=False)


def answers(url: str) -> bool:
    """Whether a URL answers 200; `NotAnswering` where nothing does."""
    try:
        return _get(url).status_code == httpx.codes.OK
    except httpx.HTTPError as error:
        raise NotAnswering(f"{url}: {error or type(error).__name__}") from error


def activate_pending(chain: LocalChain, log_url: str, simulator: SecretKey, operator: str) -> bool:
    """Activate the boot that a coordinator shows, if one is waiting; whether one was."""
    pending = read_json(f"{log_url}/attestation")["pending"]
    if pending is None:
        return False
    manifest = Manifest.from_json(pending["manifest"])
    parameters = Parameters.from_json(pending["parameters"])
    now_ms = time.time_ns() // 1_000_000
    attestation = _checked(bytes.fromhex(pending["document"]), manifest, now_ms)
    code = frozenset({(SIMULATED_MEASUREMENT, parameters.digest())})
    verdict = verdict_on(
        attestation.document,
        manifest,
        parameters,
        trust=trust_in(chain.client.deployment, code),
        block=seen_block(chain.client, manifest.block.number),
        now_ms=now_ms,
    )
    signed = Signed.by(simulator, chain.client.deployment.domain, verdict)
    call = Calls(chain.client.deployment).activate(verdict, signed.signature)
    chain.sender(operator).send(call)
    return True


def _checked(document: bytes, manifest: Manifest, now_ms: int) -> SimulatedAttestation:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SimulatedDocumentWarning)
        live = Live(now_ms=now_ms)
        return verify_simulated(document, time=live, binding=binding_of(manifest))
