"""Asks two SMT solvers at once, Yices over bits and cvc5 over integers; the first to know decides.

Sums at full width take the one or the other seconds that the other spends minutes on. Halmos calls this
with a file in SMT-LIB's format: solve.py FILE.
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

VERDICTS = ("sat", "unsat")


def main(path: str) -> int:
    bits = [str(Path(sys.executable).parent / "yices-smt2"), "--smt2-model-format", "--bvconst-in-decimal", path]
    integers = [sys.executable, __file__, "--integers", path]
    solvers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in (bits, integers)]
    answer = "unknown\n"
    with ThreadPoolExecutor(len(solvers)) as pool:
        try:
            for done in as_completed([pool.submit(solver.communicate) for solver in solvers]):
                output, _ = done.result()
                if output.startswith(VERDICTS):
                    answer = output
                    break
        finally:
            for solver in solvers:
                solver.kill()
    print(answer, end="")
    return 0


def with_integers(path: str) -> int:
    import cvc5

    solver = cvc5.Solver(cvc5.TermManager())
    solver.setOption("produce-models", "true")
    solver.setOption("solve-bv-as-int", "sum")
    parser = cvc5.InputParser(solver)
    parser.setFileInput(cvc5.InputLanguage.SMT_LIB_2_6, path)
    while not (command := parser.nextCommand()).isNull():
        print(command.invoke(solver, parser.getSymbolManager()), end="")
    return 0


if __name__ == "__main__":
    sys.exit(with_integers(sys.argv[2]) if sys.argv[1] == "--integers" else main(sys.argv[1]))
