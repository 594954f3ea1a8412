"""Asks two SMT solvers at once, Yices over bits and cvc5 over integers; the first to know decides.

Sums at full width take the one or the other seconds that the other spends minutes on. Halmos calls
this with a file in SMT-LIB's format: solve.py FILE.
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

_VERDICTS = ("sat", "unsat")


def main(path: str) -> None:
    """Print the first verdict with its model, or `unknown` where neither solver has one."""
    yices = Path(sys.executable).parent / "yices-smt2"
    integers = Path(__file__).parent / "solve_integers.py"
    solvers = [
        _start([yices, "--smt2-model-format", "--bvconst-in-decimal", path]),
        _start([sys.executable, integers, path]),
    ]
    answer = "unknown\n"
    with ThreadPoolExecutor(len(solvers)) as pool:
        for finished in as_completed([pool.submit(solver.communicate) for solver in solvers]):
            output, _ = finished.result()
            if output.startswith(_VERDICTS):
                answer = output
                break
        for solver in solvers:
            solver.kill()
    sys.stdout.write(answer)


def _start(command: list[Path | str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603


if __name__ == "__main__":
    main(sys.argv[1])
