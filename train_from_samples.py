"""PatchSTG from a table of samples in MaxCompute: the second script of the original guide."""

from flowpatch.cli import entry
from flowpatch.cli.guide import train_app

if __name__ == "__main__":
    entry(train_app)
