"""`python -m flowpatch`."""

from flowpatch.cli import main

if __name__ == "__main__":
    main()
