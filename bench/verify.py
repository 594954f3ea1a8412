"""Offline verification of one bundle: cold (a fresh process, imports apart) and warm.

    make bench-verify

Aim: 15 ms cold, 2 ms warm, without a tokenizer. The bundle is a made-up live auction of three nodes
with its batch; chain facts are in memory, so the network is not measured.
"""

import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from statistics import median

from enclave.simulator.nsm import SimulatedNsm
from pinaivu.attestation.simulated import SimulatedDocumentWarning
from pinaivu.manifest import Manifest
from pinaivu.testing.bundles import BundleFactory
from pinaivu.testing.scenarios import SCENARIOS
from pinaivu.testing.sources import SeededRandom, SteppingClock
from pinaivu.verify import Copies, Verifier, development

ROUNDS = 200
COLD_STARTS = 5
OUT = Path(__file__).parent / "out" / "verify.json"


def prepared() -> tuple[Verifier, bytes, Copies]:
    """A verifier that has seen nothing yet, and a bundle for it."""
    clock = SteppingClock()
    nsm = SimulatedNsm(now_ms=clock, random=SeededRandom(1))

    def attest(manifest: Manifest) -> bytes:
        return nsm.attest(
            public_key=manifest.signing_key, user_data=manifest.digest(), nonce=manifest.block.hash
        )

    factory = BundleFactory(attest=attest, clock=clock)
    made = factory.make(SCENARIOS["live"])
    copies = Copies(
        request=made.copies.request, response=made.copies.response, salt=made.copies.salt
    )
    return Verifier(development(factory.domain), factory.chain), made.raw, copies


def once_ms(verifier: Verifier, raw: bytes, copies: Copies) -> float:
    """Milliseconds of one verification, of wall time."""
    began = time.perf_counter()
    verifier.verify(raw, copies)
    return 1000 * (time.perf_counter() - began)


def main() -> None:
    """Print the table and write `bench/out/verify.json`; with `--cold`, one cold number."""
    warnings.simplefilter("ignore", SimulatedDocumentWarning)
    verifier, raw, copies = prepared()
    first_ms = once_ms(verifier, raw, copies)
    if "--cold" in sys.argv:
        print(first_ms)
        return
    warm = sorted(once_ms(verifier, raw, copies) for _ in range(ROUNDS))
    command = [sys.executable, "-m", "bench.verify", "--cold"]
    cold = [
        float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603 - this very file
        for _ in range(COLD_STARTS)
    ]
    figures = {
        "bundle_bytes": len(raw),
        "cold_ms": {"median": median(cold), "best": min(cold)},
        "warm_ms": {"median": median(warm), "best": warm[0]},
        "load": os.getloadavg()[0],
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"bundle {len(raw)} bytes, machine load {figures['load']:.1f}")
    print(f"cold   median {median(cold):6.1f} ms   best {min(cold):6.1f} ms   aim 15")
    print(f"warm   median {median(warm):6.1f} ms   best {warm[0]:6.1f} ms   aim 2")


if __name__ == "__main__":
    main()
