"""/dev/nsm by ioctl, against a fake driver that reads and writes the same memory a kernel would."""

import ctypes
import errno
import os
from pathlib import Path
from typing import Any

import cbor2
import pytest

from enclave.device import MAX_RESPONSE_BYTES, NSM_IOCTL, NsmDevice, NsmMessage
from enclave.nsm import NsmFailure
from pinaivu.errors import Misconfigured

FD = 42


class FakeNsmDriver:
    """Stands for the kernel's side of the ioctl: decodes the request, writes the answer."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)
        self.requests = list[Any]()

    def __call__(self, fd: int, number: int, message: NsmMessage) -> int:
        """One ioctl."""
        assert (fd, number) == (FD, NSM_IOCTL)
        assert message.response.length == MAX_RESPONSE_BYTES
        raw = ctypes.string_at(message.request.base, message.request.length)
        self.requests.append(cbor2.loads(raw))
        answer = self._answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        encoded = answer if isinstance(answer, bytes) else cbor2.dumps(answer)
        ctypes.memmove(message.response.base, encoded, len(encoded))
        message.response.length = len(encoded)
        return 0


DESCRIPTION = {
    "DescribeNSM": {
        "version_major": 1,
        "version_minor": 0,
        "version_patch": 0,
        "module_id": "i-0-enc0",
        "max_pcrs": 32,
        "locked_pcrs": [0, 2],
        "digest": "SHA384",
    }
}


def test_the_ioctl_number_is_the_drivers() -> None:
    assert NSM_IOCTL == 0xC0200A00
    assert ctypes.sizeof(NsmMessage) == 32


def test_describing_reads_the_modules_answer() -> None:
    driver = FakeNsmDriver(DESCRIPTION)
    description = NsmDevice(FD, driver).describe()
    assert driver.requests == ["DescribeNSM"]
    assert (description.module_id, description.digest) == ("i-0-enc0", "SHA384")
    assert (description.max_pcrs, description.locked_pcrs) == (32, frozenset({0, 2}))


def test_locked_registers_are_read_one_by_one() -> None:
    first, third = b"\1" * 48, b"\3" * 48
    driver = FakeNsmDriver(
        DESCRIPTION,
        {"DescribePCR": {"lock": True, "data": first}},
        {"DescribePCR": {"lock": True, "data": third}},
    )
    assert NsmDevice(FD, driver).pcrs() == {0: first, 2: third}
    assert driver.requests[1:] == [{"DescribePCR": {"index": 0}}, {"DescribePCR": {"index": 2}}]


def test_attesting_sends_all_three_fields_and_returns_the_document() -> None:
    driver = FakeNsmDriver({"Attestation": {"document": b"document"}})
    found = NsmDevice(FD, driver).attest(public_key=b"k", user_data=None, nonce=b"n")
    assert found == b"document"
    fields = {"public_key": b"k", "user_data": None, "nonce": b"n"}
    assert driver.requests == [{"Attestation": fields}]


def test_random_bytes_are_collected_over_several_answers() -> None:
    driver = FakeNsmDriver(
        {"GetRandom": {"random": b"a" * 256}}, {"GetRandom": {"random": b"b" * 256}}
    )
    assert NsmDevice(FD, driver).random(300) == b"a" * 256 + b"b" * 44
    assert driver.requests == ["GetRandom", "GetRandom"]


BAD_ANSWERS = {
    "an error": {"Error": "InvalidArgument"},
    "an error as text": "Error",
    "another answer": {"GetRandom": {"random": b"x"}},
    "no document": {"Attestation": {}},
    "a document as text": {"Attestation": {"document": "x"}},
    "no CBOR": b"\xff",
    "the ioctl failing": OSError(errno.EMSGSIZE, "Message too long"),
}


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
def test_other_answers_are_failures(answer: object) -> None:
    device = NsmDevice(FD, FakeNsmDriver(answer))
    with pytest.raises(NsmFailure):
        device.attest(public_key=None, user_data=None, nonce=None)


@pytest.mark.parametrize("part", [b"", b"x" * 257])
def test_random_answers_of_a_wrong_length_are_failures(part: bytes) -> None:
    with pytest.raises(NsmFailure, match="random bytes"):
        NsmDevice(FD, FakeNsmDriver({"GetRandom": {"random": part}})).random(1)


@pytest.mark.parametrize(
    ("field", "length"), [("public_key", 1025), ("user_data", 513), ("nonce", 513)]
)
def test_fields_beyond_awss_limits_never_reach_the_driver(field: str, length: int) -> None:
    driver = FakeNsmDriver()
    fields: dict[str, bytes | None] = dict.fromkeys(("public_key", "user_data", "nonce"))
    with pytest.raises(NsmFailure, match=field):
        NsmDevice(FD, driver).attest(**{**fields, field: bytes(length)})
    assert driver.requests == []


def test_a_missing_device_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"enclave\.simulator"):
        NsmDevice.open(tmp_path / "nsm")


def test_the_device_is_closed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "nsm"
    path.touch()
    with NsmDevice.open(path) as device:
        os.fstat(device._fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(device._fd)
