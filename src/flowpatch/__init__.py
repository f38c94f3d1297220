"""flowpatch: raw traffic records to a sample store once, PatchSTG training from it at will.

Names are loaded when first used, so that `import flowpatch` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowpatch.catalogue.comparison import compare as compare
    from flowpatch.catalogue.listing import list_stores as list_stores
    from flowpatch.catalogue.verification import verify as verify
    from flowpatch.errors import FlowpatchError as FlowpatchError
    from flowpatch.forecasting import Forecast as Forecast
    from flowpatch.forecasting import forecast as forecast
    from flowpatch.maxcompute.settings import MaxComputeSettings as MaxComputeSettings
    from flowpatch.model.settings import ModelSettings as ModelSettings
    from flowpatch.preprocessing.build import preprocess as preprocess
    from flowpatch.preprocessing.settings import PreprocessSettings as PreprocessSettings
    from flowpatch.preprocessing.settings import UpdateSettings as UpdateSettings
    from flowpatch.preprocessing.update import update as update
    from flowpatch.sources.simulated import SimulateSettings as SimulateSettings
    from flowpatch.sources.simulated import simulate as simulate
    from flowpatch.store.sample_store import SampleStore as SampleStore
    from flowpatch.store.sample_store import open_store as open_store
    from flowpatch.training.evaluation import evaluate as evaluate
    from flowpatch.training.runs import resume as resume
    from flowpatch.training.runs import train as train
    from flowpatch.training.settings import TrainSettings as TrainSettings
    from flowpatch.windows.batches import Windows as Windows
    from flowpatch.windows.opening import open_windows as open_windows
    from flowpatch.windows.origins import origins_of as origins_of

_HOMES = {
    "FlowpatchError": "errors",
    "Forecast": "forecasting",
    "MaxComputeSettings": "maxcompute.settings",
    "ModelSettings": "model.settings",
    "PreprocessSettings": "preprocessing.settings",
    "SampleStore": "store.sample_store",
    "SimulateSettings": "sources.simulated",
    "TrainSettings": "training.settings",
    "UpdateSettings": "preprocessing.settings",
    "Windows": "windows.batches",
    "compare": "catalogue.comparison",
    "evaluate": "training.evaluation",
    "forecast": "forecasting",
    "list_stores": "catalogue.listing",
    "open_store": "store.sample_store",
    "open_windows": "windows.opening",
    "origins_of": "windows.origins",
    "preprocess": "preprocessing.build",
    "resume": "training.runs",
    "simulate": "sources.simulated",
    "train": "training.runs",
    "update": "preprocessing.update",
    "verify": "catalogue.verification",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("flowpatch")
    if name not in _HOMES:
        raise AttributeError(f"module 'flowpatch' has no attribute '{name}'")
    return getattr(import_module(f"flowpatch.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
