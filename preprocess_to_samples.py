"""Raw records in MaxCompute to a table of samples: the first script of the original guide."""

from flowpatch.cli import entry
from flowpatch.cli.guide import preprocess_app

if __name__ == "__main__":
    entry(preprocess_app)
