"""`flowpatch preprocess`: raw records to a sample store."""

from typing import Annotated

from cyclopts import Parameter

from flowpatch.preprocessing.settings import PreprocessSettings


def preprocess(*, settings: Annotated[PreprocessSettings, Parameter(name="*")]) -> None:
    """Turn raw records into a sample store."""
    # Imported here: --help must not wait for the engines.
    from flowpatch.preprocessing.build import preprocess

    print(preprocess(settings).path)
