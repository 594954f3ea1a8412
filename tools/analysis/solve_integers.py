"""cvc5 on a file in SMT-LIB's format, bit vectors taken as integers: solve_integers.py FILE."""

import sys

import cvc5


def main(path: str) -> None:
    """Carry out the file's commands and print what they answer."""
    solver = cvc5.Solver(cvc5.TermManager())
    solver.setOption("produce-models", "true")
    solver.setOption("solve-bv-as-int", "sum")
    parser = cvc5.InputParser(solver)
    parser.setFileInput(cvc5.InputLanguage.SMT_LIB_2_6, path)
    while not (command := parser.nextCommand()).isNull():
        sys.stdout.write(command.invoke(solver, parser.getSymbolManager()))


if __name__ == "__main__":
    main(sys.argv[1])
