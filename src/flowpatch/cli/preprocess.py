"""`flowpatch preprocess`: raw records to a sample store."""

from typing import Annotated

from cyclopts import Parameter

from flowpatch.cli.groups import MAXCOMPUTE
from flowpatch.maxcompute.settings import MaxComputeAccess, MaxComputeSettings
from flowpatch.preprocessing.kept_memory import keep_freed_memory
from flowpatch.preprocessing.settings import PreprocessSettings

_DEFAULT_ACCESS = MaxComputeAccess()


def preprocess(
    *,
    settings: Annotated[PreprocessSettings, Parameter(name="*")],
    maxcompute: Annotated[MaxComputeAccess, MAXCOMPUTE] = _DEFAULT_ACCESS,
) -> None:
    """Turn raw records into a sample store."""
    keep_freed_memory()
    # Imported here: --help must not wait for the engines.
    from flowpatch.preprocessing.build import preprocess

    print(preprocess(settings, MaxComputeSettings(**maxcompute.model_dump())).path)
