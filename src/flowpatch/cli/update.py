"""`flowpatch update`: a sample store brought up to date from its own source."""

from typing import Annotated

from cyclopts import Parameter

from flowpatch.cli.groups import MAXCOMPUTE
from flowpatch.maxcompute.settings import MaxComputeSettings
from flowpatch.places.address import StoreAddress
from flowpatch.preprocessing.settings import UpdateSettings

_DEFAULT = UpdateSettings()
_DEFAULT_MAXCOMPUTE = MaxComputeSettings()


def update(
    store: StoreAddress,
    *,
    settings: Annotated[UpdateSettings, Parameter(name="*")] = _DEFAULT,
    maxcompute: Annotated[MaxComputeSettings, MAXCOMPUTE] = _DEFAULT_MAXCOMPUTE,
) -> None:
    """Bring a sample store up to date: new days, corrected days, new nodes.

    Parameters
    ----------
    store
        The sample store: a folder, or s3://BUCKET/PATH.
    """
    # Imported here: --help must not wait for the engines.
    from flowpatch.preprocessing.update import update

    print(update(store, settings, maxcompute).path)
