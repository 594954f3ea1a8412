"""`python -m pinaivu`: the same as the `pinaivu` command."""

from pinaivu.cli.main import main

if __name__ == "__main__":
    main()
