"""/dev/nsm: the real security module, one ioctl per request.

Request and answer are CBOR items whose addresses stand in a pair of iovecs. The driver is in Linux
since 6.8; a missing device means that this is no Nitro enclave. Lengths are checked here, since
emulators are laxer than AWS. No extending or locking of registers: boot needs none.
"""

import fcntl
import os
from collections.abc import Callable, Mapping
from ctypes import Structure, addressof, c_size_t, c_void_p, create_string_buffer, sizeof
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import cbor2

from enclave.nsm import MAX_RANDOM_BYTES, NsmDescription, NsmFailure
from pinaivu.attestation.document import (
    MAX_NONCE_BYTES,
    MAX_PUBLIC_KEY_BYTES,
    MAX_USER_DATA_BYTES,
)
from pinaivu.errors import Misconfigured

NSM_DEVICE: Final = Path("/dev/nsm")
MAX_REQUEST_BYTES: Final = 0x1000
MAX_RESPONSE_BYTES: Final = 0x3000

T = TypeVar("T")
Ioctl = Callable[[int, int, "NsmMessage"], object]


class IoVector(Structure):
    """``struct iovec``."""

    _fields_ = (("base", c_void_p), ("length", c_size_t))


class NsmMessage(Structure):
    """The ioctl's argument; the driver writes the answer's length into `response`."""

    _fields_ = (("request", IoVector), ("response", IoVector))


NSM_IOCTL: Final = (3 << 30) | (sizeof(NsmMessage) << 16) | (0x0A << 8)
"""``_IOWR(0x0A, 0, struct nsm_raw)``, 0xC0200A00."""


class NsmDevice:
    """`Nsm` over an open /dev/nsm. A context manager; closes what `open` opened."""

    def __init__(self, fd: int, ioctl: Ioctl = fcntl.ioctl) -> None:
        self._fd = fd
        self._ioctl = ioctl

    @classmethod
    def open(cls, path: Path = NSM_DEVICE) -> Self:
        """Open the device; `Misconfigured` where there is none."""
        try:
            return cls(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            raise Misconfigured(
                f"{path} can't be opened ({error.strerror}): this boot runs inside an AWS Nitro"
                " enclave only; for a local network use `python -m enclave.simulator`"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    def describe(self) -> NsmDescription:
        """See `Nsm.describe`."""
        answer = self._ask("DescribeNSM", "DescribeNSM")
        return NsmDescription(
            module_id=_member(answer, "module_id", str),
            digest=_member(answer, "digest", str),
            max_pcrs=_member(answer, "max_pcrs", int),
            locked_pcrs=frozenset(map(int, _member(answer, "locked_pcrs", list))),
        )

    def random(self, count: int) -> bytes:
        """See `Nsm.random`; asks as often as the module's 256 bytes an answer demand."""
        drawn = bytearray()
        while len(drawn) < count:
            part = _member(self._ask("GetRandom", "GetRandom"), "random", bytes)
            if not 1 <= len(part) <= MAX_RANDOM_BYTES:
                raise NsmFailure(f"the NSM gave {len(part)} random bytes")
            drawn += part
        return bytes(drawn[:count])

    def pcrs(self) -> Mapping[int, bytes]:
        """See `Nsm.pcrs`."""
        return {index: self._pcr(index) for index in sorted(self.describe().locked_pcrs)}

    def attest(
        self, *, public_key: bytes | None, user_data: bytes | None, nonce: bytes | None
    ) -> bytes:
        """See `Nsm.attest`."""
        _require_length("public_key", public_key, MAX_PUBLIC_KEY_BYTES)
        _require_length("user_data", user_data, MAX_USER_DATA_BYTES)
        _require_length("nonce", nonce, MAX_NONCE_BYTES)
        fields = {"user_data": user_data, "nonce": nonce, "public_key": public_key}
        return _member(self._ask("Attestation", {"Attestation": fields}), "document", bytes)

    def _pcr(self, index: int) -> bytes:
        return _member(self._ask("DescribePCR", {"DescribePCR": {"index": index}}), "data", bytes)

    def _ask(self, name: str, request: object) -> Mapping[str, Any]:
        """One request; the body of the answer of that name."""
        answer = self._exchange(cbor2.dumps(request))
        if isinstance(answer, dict) and isinstance(body := answer.get(name), dict):
            return body
        reason = answer.get("Error") if isinstance(answer, dict) else answer
        raise NsmFailure(f"the NSM answered {name} with {reason!r}")

    def _exchange(self, request: bytes) -> object:
        if len(request) > MAX_REQUEST_BYTES:
            raise NsmFailure(f"a request of {len(request)} bytes; {MAX_REQUEST_BYTES} fit")
        source = create_string_buffer(request, len(request))
        target = create_string_buffer(MAX_RESPONSE_BYTES)
        message = NsmMessage(
            IoVector(addressof(source), len(request)),
            IoVector(addressof(target), MAX_RESPONSE_BYTES),
        )
        try:
            self._ioctl(self._fd, NSM_IOCTL, message)
            return cbor2.loads(target.raw[: message.response.length])
        except OSError as error:
            raise NsmFailure(f"the NSM's ioctl failed: {error}") from error
        except cbor2.CBORDecodeError as error:
            raise NsmFailure(f"the NSM's answer is no CBOR: {error}") from error


def _member(answer: Mapping[str, Any], name: str, kind: type[T]) -> T:
    value = answer.get(name)
    if not isinstance(value, kind):
        raise NsmFailure(f"the NSM's answer has no {name}")
    return value


def _require_length(name: str, value: bytes | None, most: int) -> None:
    if value is not None and len(value) > most:
        raise NsmFailure(f"{name} of {len(value)} bytes; {most} are attested at most")
