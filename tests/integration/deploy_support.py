"""Runs the deployment task as an operator does, in a folder of its own."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pinaivu.chain.deployer import LOCAL, Powers
from pinaivu.chain.deployment import Deployment
from pinaivu.chain.rpc import HttpRpc
from pinaivu.chain.transactor import Transactor
from pinaivu.keys import SecretKey, checksum

TREE = Path(__file__).parents[2]
NETWORK = "test-net"


@dataclass(frozen=True)
class Task:
    """`npm run deploy` against `url` with `key`, everything it reads and writes below `folder`."""

    folder: Path
    url: str
    key: SecretKey

    def write_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Say what to deploy."""
        place = self.folder / "parameters" / f"{NETWORK}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(parameters))

    def start(self) -> subprocess.Popen[str]:
        """Begin a run; it ends by itself."""
        environment = os.environ | {
            "PINAIVU_RPC_URL": self.url,
            "PINAIVU_DEPLOYER_KEY": "0x" + self.key.secret.hex(),
            "PINAIVU_PARAMETERS": str(self.folder / "parameters"),
        }
        places = ("--out", str(self.folder), "--journal", str(self.folder / "journal"))
        return subprocess.Popen(
            ["tools/npm", "run", "-s", "deploy", "--", "--network", NETWORK, "--yes", *places],
            cwd=TREE,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def run(self) -> str:
        """A whole run that must succeed; what it said."""
        code, said = self.outcome()
        assert code == 0, said
        return said

    def outcome(self) -> tuple[int, str]:
        """A whole run: exit code, and what it said."""
        child = self.start()
        said, _ = child.communicate(timeout=120)
        return child.returncode, said

    @property
    def deployment(self) -> Deployment:
        """What the last run wrote."""
        return Deployment.load(self.folder / f"{NETWORK}.json")


def local_parameters(chain_id: int, powers: Powers) -> dict[str, Any]:
    """What `LOCAL` is for the Python deployer, with play money and the simulator."""
    times = LOCAL.times
    admin = checksum(powers.administrator)
    return {
        "chainId": chain_id,
        "token": "test",
        "holders": {
            "admin": admin,
            "administrator": admin,
            "guardian": checksum(powers.guardian),
            "registrar": checksum(powers.registrar),
        },
        "beneficiary": admin,
        "simulator": checksum(powers.simulator),
        "times": {
            "unsettledMax": times.unsettled_max_ms // 1000,
            "pauseMax": times.pause_max_ms // 1000,
            "withdrawalDelay": times.withdrawal_delay_ms // 1000,
            "adminDelay": times.admin_delay_ms // 1000,
            "pauseInterval": times.pause_interval_ms // 1000,
            "limiterWindow": times.limiter_window_ms // 1000,
        },
        "payoutDelay": LOCAL.payout_delay_ms // 1000,
        "unbondingDelay": LOCAL.unbonding_delay_ms // 1000,
        "debitLimitPpm": LOCAL.debit_limit_ppm,
    }


def ignite(folder: Path, deployer: SecretKey, url: str) -> Any:
    """A maker for `Network` that deploys with Ignition, from an account that is nobody else."""

    def make(rpc: HttpRpc, _admin: Transactor, powers: Powers) -> Deployment:
        task = Task(folder, url, deployer)
        task.write_parameters(local_parameters(int(rpc.call("eth_chainId"), 16), powers))
        task.run()
        return task.deployment

    return make
