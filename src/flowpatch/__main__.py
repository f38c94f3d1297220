"""`python -m flowpatch`."""

from flowpatch.cli import entry

if __name__ == "__main__":
    entry()
