"""How long a command takes to begin: processes from start to end, taking turns."""

import sys

from benchmarks.measuring import alternate, flowpatch, run
from benchmarks.rows import Found, FoundRow
from benchmarks.workshop import Workshop


def measure(workshop: Workshop) -> FoundRow:
    """`flowpatch --help` and `import flowpatch`, beside a Python that does nothing."""
    commands = (
        flowpatch("--help"),
        [sys.executable, "-c", "import flowpatch"],
        [sys.executable, "-c", "pass"],
    )
    for command in commands:
        run(command)
    shown, imported, nothing = alternate(
        workshop.rounds(7),
        *(lambda command=command: run(command).seconds for command in commands),
    )
    return {"help": Found(shown, nothing), "import": Found(imported, nothing)}
