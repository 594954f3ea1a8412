"""Supervises anvil, the local development chain, as a child process with its state in a file.

The chain keeps blocks, hashes and balances over a stop and a start. A SIGKILL loses at most the
last seconds (see `SNAPSHOT_S`); what comes back is always a state the chain really had. The child
ends with this process, however that ends. Transactions above the protocol's gas cap are refused as
on a public chain.

Not for anything but development and tests: its accounts' keys are public, and state as of old
blocks is not kept over a restart, so reads then see the head only.

    >>> with AnvilProcess(Path("chain/state.json"), port=8545) as chain:  # doctest: +SKIP
    ...     HttpRpc(chain.url).call("eth_blockNumber")
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, Self

import msgspec

from pinaivu.chain.errors import AnvilDied, AnvilUnusable, ChainUnavailable
from pinaivu.chain.rpc import HttpRpc, JsonRpc
from pinaivu.chain.words import quantity, to_hex
from pinaivu.loopback import HOST, free_port

CHAIN_ID: Final = 31337
SNAPSHOT_S: Final = 2.0
_NPM_BINARY: Final = Path("node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil")
_POLL_S: Final = 0.02
_OUTPUT_TAIL: Final = 2000

# Runs in the child, then becomes the program: the kernel ends it when its parent ends.
_TIE_TO_PARENT: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]): sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def find_anvil(explicit: Path | None = None, *, tree: Path | None = None) -> Path:
    """The anvil binary: `explicit`, else `tree`'s (or this folder's) npm one, else from PATH."""
    if explicit is not None:
        if not os.access(explicit, os.X_OK):
            raise AnvilUnusable(f"{explicit} is no executable anvil; give another path")
        return explicit
    pinned = (tree or Path.cwd()) / _NPM_BINARY
    if os.access(pinned, os.X_OK):
        return pinned.resolve()
    on_path = shutil.which("anvil")
    if on_path is None:
        raise AnvilUnusable(
            f"no anvil: neither {pinned} nor one on PATH; run `make setup` in the source tree"
            " (or `npm ci`), or give the path of an anvil binary"
        )
    return Path(on_path)


def fund(rpc: JsonRpc, address: bytes, ether: int = 1_000) -> None:
    """Give an account of a development chain native coin; not a transaction, nobody pays."""
    rpc.call("anvil_setBalance", to_hex(address), hex(ether * 10**18))


def catch_up(rpc: JsonRpc, now_ms: int) -> None:
    """Move the clock of a chain that began in the past to `now_ms`; the next block shows it."""
    rpc.call("evm_setTime", now_ms)
    rpc.call("evm_mine")


class AnvilProcess:
    """One anvil child. `start` may follow `stop` or `kill`, and goes on where the state ends.

    `block_time_s` None mines a block per transaction. Port 0 takes a free one, kept over restarts.
    `genesis_s` is the time of block 0 of a chain that has no state yet: one that begins in the past
    can be deployed, have its delays pass, and then `catch_up` with the present.
    """

    def __init__(
        self,
        state: Path,
        *,
        port: int = 0,
        chain_id: int = CHAIN_ID,
        block_time_s: int | None = None,
        genesis_s: int | None = None,
        binary: Path | None = None,
    ) -> None:
        self.state = state
        self.port = port or free_port()
        self.chain_id = chain_id
        self.log = state.with_suffix(".log")
        self._backup = state.with_suffix(".good.json")
        self._block_time_s = block_time_s
        self._genesis_s = genesis_s
        self._binary = binary
        self._child: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where its JSON-RPC listens."""
        return f"http://{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        child = self._child
        return child.pid if child is not None and child.poll() is None else None

    def start(self, *, timeout_s: float = 30.0) -> Self:
        """Start, and return once it answers; `AnvilUnusable` or `AnvilDied` with its output."""
        if self.pid is not None:
            return self
        command = self._command()
        self._require_free_port()
        self.state.parent.mkdir(parents=True, exist_ok=True)
        self._restore()
        log = self.log.open("wb")
        launched = threading.Event()
        # The kernel ties a child to the *thread* that made it, so that thread stays as long.
        self._keeper = threading.Thread(
            target=self._keep, args=(command, log, launched), name="anvil-keeper", daemon=True
        )
        self._keeper.start()
        launched.wait()
        try:
            self._await_ready(timeout_s)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self, *, timeout_s: float = 10.0) -> None:
        """End it in order, with all its state written; killed after `timeout_s`."""
        self._end(signal.SIGTERM, timeout_s)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL, timeout_s=10.0)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _command(self) -> list[str]:
        timed = [] if self._block_time_s is None else ["--block-time", str(self._block_time_s)]
        if self._genesis_s is not None and not self.state.exists():
            timed += ["--timestamp", str(self._genesis_s)]
        return [
            *(str(find_anvil(self._binary)), "--host", HOST, "--port", str(self.port)),
            *("--chain-id", str(self.chain_id), "--hardfork", "osaka", "--enable-tx-gas-limit"),
            *("--state", str(self.state), "--state-interval", "1"),
            *timed,
        ]

    def _require_free_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, self.port))
            except OSError as error:
                raise AnvilUnusable(
                    f"port {self.port} on {HOST} is in use (by another chain?); end that program"
                    " or choose another port"
                ) from error

    def _keep(self, command: list[str], log: IO[bytes], launched: threading.Event) -> None:
        """Make the child, keep copies of its state while it runs, reap it."""
        tie = [sys.executable, "-I", "-S", "-c", _TIE_TO_PARENT, str(os.getpid())]
        try:
            with log:
                child = self._child = _spawn([*tie, *command], log)
        finally:
            launched.set()
        kept = 0
        while True:
            with suppress(subprocess.TimeoutExpired):
                child.wait(SNAPSHOT_S)
                return
            kept = self._snapshot(kept)

    def _snapshot(self, kept: int) -> int:
        """Keep the latest whole state: anvil rewrites its file in place, and may die halfway.

        `kept` and the result are checksums of what was copied last.
        """
        with suppress(OSError):
            state = self.state.read_bytes()
            checksum = zlib.crc32(state)
            if checksum != kept and _is_whole(state):
                _replace(self._backup, state)
                return checksum
        return kept

    def _restore(self) -> None:
        if not self.state.exists() or _is_whole(self.state.read_bytes()):
            return
        if not self._backup.exists():
            raise AnvilUnusable(f"{self.state} is damaged and has no copy; delete it to begin anew")
        _replace(self.state, self._backup.read_bytes())

    def _await_ready(self, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        with HttpRpc(self.url, timeout_s=2.0) as rpc:
            while self.pid is not None and time.monotonic() < end:
                try:
                    answered = quantity(rpc.call("eth_chainId"))
                except ChainUnavailable:
                    time.sleep(_POLL_S)
                    continue
                if answered == self.chain_id:
                    return
        raise AnvilDied(f"anvil did not become ready; its output ended with:\n{self._output()}")

    def _output(self) -> str:
        with suppress(OSError):
            return self.log.read_text(errors="replace")[-_OUTPUT_TAIL:].strip()
        return "(nothing)"

    def _end(self, how: signal.Signals, timeout_s: float) -> None:
        child, keeper = self._child, self._keeper
        if child is None or keeper is None:
            return
        child.send_signal(how)
        keeper.join(timeout_s)
        if keeper.is_alive():
            child.kill()
            keeper.join()
        self._child = self._keeper = None


def _spawn(command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - the command is ours
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _is_whole(state: bytes) -> bool:
    try:
        msgspec.json.decode(state, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return False
    return bool(state)


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.replace(path)
