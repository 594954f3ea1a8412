"""`SimulatedNsm`: the port `enclave.nsm.Nsm` without an enclave, and without any meaning.

It keeps the real module's limits and document form, so that whatever works here has met the same
refusals. It holds no register of its own: PCR0–2 are the fixed simulated ones, the rest zero.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from enclave.nsm import NsmDescription, NsmFailure
from enclave.simulator.certificates import Issued, issue_chain
from pinaivu.attestation.document import (
    MAX_NONCE_BYTES,
    MAX_PUBLIC_KEY_BYTES,
    MAX_USER_DATA_BYTES,
    PCR_BYTES,
    PROTECTED_ES384,
)
from pinaivu.attestation.simulated import SIMULATED_PCRS

SIMULATED_MODULE_ID: Final = "simulated-enc0000000000000000"
_LOCKED: Final = range(16)
_SCALAR_BYTES: Final = 48
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class SimulatedNsm:
    """Signs any document under a root of its own. `now_ms` and `random` are its whole world."""

    def __init__(self, *, now_ms: Callable[[], int], random: Callable[[int], bytes]) -> None:
        self._now_ms = now_ms
        self._random = random
        self._root = Issued.root(_moment(now_ms()))

    def describe(self) -> NsmDescription:
        """See `Nsm.describe`."""
        return NsmDescription(
            module_id=SIMULATED_MODULE_ID,
            digest="SHA384",
            max_pcrs=32,
            locked_pcrs=frozenset(_LOCKED),
        )

    def random(self, count: int) -> bytes:
        """See `Nsm.random`; here from the source given at construction."""
        return self._random(count)

    def pcrs(self) -> Mapping[int, bytes]:
        """See `Nsm.pcrs`."""
        return {index: SIMULATED_PCRS.get(index, bytes(PCR_BYTES)) for index in _LOCKED}

    def attest(
        self, *, public_key: bytes | None, user_data: bytes | None, nonce: bytes | None
    ) -> bytes:
        """See `Nsm.attest`; SIMULATED."""
        _require_length("public_key", public_key, MAX_PUBLIC_KEY_BYTES)
        _require_length("user_data", user_data, MAX_USER_DATA_BYTES)
        _require_length("nonce", nonce, MAX_NONCE_BYTES)
        now_ms = self._now_ms()
        *authorities, leaf = issue_chain(self._root, SIMULATED_MODULE_ID, _moment(now_ms))
        payload = cbor2.dumps(
            {
                "module_id": SIMULATED_MODULE_ID,
                "digest": "SHA384",
                "timestamp": now_ms,
                "pcrs": dict(self.pcrs()),
                "certificate": leaf.der,
                "cabundle": [authority.der for authority in authorities],
                "public_key": public_key,
                "user_data": user_data,
                "nonce": nonce,
            }
        )
        return cbor2.dumps([PROTECTED_ES384, {}, payload, _es384(leaf.key, payload)])


def _es384(key: ec.EllipticCurvePrivateKey, payload: bytes) -> bytes:
    signed = cbor2.dumps(["Signature1", PROTECTED_ES384, b"", payload])
    scalars = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA384())))
    return b"".join(scalar.to_bytes(_SCALAR_BYTES) for scalar in scalars)


def _require_length(name: str, value: bytes | None, most: int) -> None:
    if value is not None and len(value) > most:
        raise NsmFailure(f"{name} of {len(value)} bytes; {most} are attested at most")


def _moment(at_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=at_ms)
