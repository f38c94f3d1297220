"""Every error that flowpatch raises on purpose.

    FlowpatchError
    ├── SettingsError (ValueError)            a flag or TOML key is wrong in itself; exit code 2
    ├── SourceError                           the raw records
    │   ├── SourceNotFoundError (FileNotFoundError)
    │   ├── ColumnError (LookupError)         a column is missing or of the wrong type
    │   ├── NodeTableError (ValueError)       keys that repeat, coordinates that are absent
    │   └── RecordError (ValueError)          too many records dropped, or none left
    ├── MaxComputeError                       MaxCompute, or its client
    │   ├── CredentialsError (PermissionError)    keys that are not set, or refused
    │   ├── NoPermissionError (PermissionError)   the account may not do this
    │   ├── UnreachableError (ConnectionError)
    │   ├── OutOfPatienceError (TimeoutError)     nothing moved for too long
    │   ├── TableNotFoundError (LookupError)      also a project or a partition
    │   ├── TableExistsError (FileExistsError)
    │   ├── TableChangedError (RuntimeError)      somebody wrote it while it was read
    │   ├── QueryError (ValueError)               a query was refused
    │   └── SampleTableError (ValueError)         rows or metadata that make no series
    ├── ClusterError                          the Dask workers that build
    │   ├── ClusterUnreachableError (ConnectionError)   no scheduler, no worker, or no longer
    │   └── UnfitWorkerError (RuntimeError)       of another version, or without sight of the files
    ├── MemoryLimitError (MemoryError)        the memory allowed is too little
    ├── PeriodError (ValueError)              the period cannot hold the windows or splits asked for
    ├── LayoutError (ValueError)              the nodes cannot be cut into the patches asked for
    ├── StoreError
    │   ├── StoreNotFoundError (FileNotFoundError)
    │   ├── StoreExistsError (FileExistsError)
    │   ├── StoreFormatError (ValueError)     written by a newer flowpatch
    │   ├── StoreLockedError (BlockingIOError)
    │   ├── StoreDraftError (ValueError)      what a stopped build left is of another build
    │   ├── StoreDamagedError (ValueError)
    │   ├── StoreUnreachableError (ConnectionError)   the object store does not answer
    │   ├── StorePermissionError (PermissionError)    its keys are not set, or refused
    │   └── StoreWriteError (OSError)         a full disk, a lost mount
    ├── RunError
    │   ├── RunNotFoundError (FileNotFoundError)
    │   ├── RunExistsError (FileExistsError)
    │   ├── RunMismatchError (ValueError)     the run contradicts the store or the settings
    │   ├── CheckpointDamagedError (ValueError)
    │   ├── TrainingDivergedError (ArithmeticError)
    │   └── ProcessLostError (ConnectionError)    another process of the same command has ended
    ├── OutputError (OSError)                 a file or folder of results cannot be written
    ├── StoppedByUser                         Ctrl-C, acted on where nothing is lost; exit code 130
    └── MissingExtraError (ImportError)       an optional engine is not installed

Each also subclasses the builtin that a caller would expect. A message names the bad value, what
is allowed, and the next step. The exit code is 2 where the command line alone shows the fault,
and 1 where it takes a look at the data.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class FlowpatchError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class SettingsError(FlowpatchError, ValueError):
    """A flag, a TOML key or a combination of them is wrong in itself."""

    exit_code = 2


class SourceError(FlowpatchError):
    """The raw records cannot be read as asked."""


class SourceNotFoundError(SourceError, FileNotFoundError):
    """No file stands behind a path or a pattern."""


class ColumnError(SourceError, LookupError):
    """A named column is missing, or holds something else than it should."""


class NodeTableError(SourceError, ValueError):
    """The node table repeats keys or gives no coordinates."""


class RecordError(SourceError, ValueError):
    """Too many records were dropped, or none was left."""


class MaxComputeError(FlowpatchError):
    """MaxCompute refused something, or its client failed."""


class CredentialsError(MaxComputeError, PermissionError):
    """The access key is not set, or MaxCompute does not accept it."""


class NoPermissionError(MaxComputeError, PermissionError):
    """The account may not do what was asked."""


class UnreachableError(MaxComputeError, ConnectionError):
    """Nothing answers at the endpoint."""


class OutOfPatienceError(MaxComputeError, TimeoutError):
    """MaxCompute kept failing or refusing for longer than it was given."""


class TableNotFoundError(MaxComputeError, LookupError):
    """No such project, table or partition."""


class TableExistsError(MaxComputeError, FileExistsError):
    """The table to be written is there already."""


class TableChangedError(MaxComputeError, RuntimeError):
    """The table was written while it was being read."""


class QueryError(MaxComputeError, ValueError):
    """A query was refused."""


class SampleTableError(MaxComputeError, ValueError):
    """The rows of a sample table, or its metadata, do not make one series."""


class ClusterError(FlowpatchError):
    """The Dask workers that build could not do it."""


class ClusterUnreachableError(ClusterError, ConnectionError):
    """No scheduler answers, it has no worker, or they went away."""


class UnfitWorkerError(ClusterError, RuntimeError):
    """A worker is of another version, or does not see what it is to read or write."""


class MemoryLimitError(FlowpatchError, MemoryError):
    """The memory that is allowed, or there, is too little for any way of working."""


class PeriodError(FlowpatchError, ValueError):
    """The period cannot hold the windows or the splits asked for."""


class LayoutError(FlowpatchError, ValueError):
    """The nodes cannot be cut into the patches asked for."""


class StoreError(FlowpatchError):
    """A sample store cannot be opened, read or written."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """No sample store, or no finished version of one, is at this path."""


class StoreExistsError(StoreError, FileExistsError):
    """Something is at the path of a store to be created."""


class StoreFormatError(StoreError, ValueError):
    """The store was written in a format that this flowpatch does not know."""


class StoreLockedError(StoreError, BlockingIOError):
    """Another process is writing this store."""


class StoreDraftError(StoreError, ValueError):
    """What a stopped build or update left cannot be gone on with."""


class StoreDamagedError(StoreError, ValueError):
    """A part of the store is missing or does not decode."""


class StoreUnreachableError(StoreError, ConnectionError):
    """The object store does not answer, or cannot serve now."""


class StorePermissionError(StoreError, PermissionError):
    """The object store was given no keys, or refuses them or what they asked for."""


class StoreWriteError(StoreError, OSError):
    """The file system refused a write."""


class RunError(FlowpatchError):
    """A run's folder cannot be used as asked."""


class RunNotFoundError(RunError, FileNotFoundError):
    """No run, or no such checkpoint of it, is in this folder."""


class RunExistsError(RunError, FileExistsError):
    """A run is already in this folder."""


class RunMismatchError(RunError, ValueError):
    """The run's settings, nodes or store version contradict what it is used with."""


class CheckpointDamagedError(RunError, ValueError):
    """A checkpoint's bytes are not those that were written."""


class TrainingDivergedError(RunError, ArithmeticError):
    """The loss is no longer a number."""


class ProcessLostError(RunError, ConnectionError):
    """Another process of the same command has ended, or cannot be reached."""


class OutputError(FlowpatchError, OSError):
    """A file or folder of results cannot be written."""


class StoppedByUser(FlowpatchError):
    """Work was stopped from outside, by Ctrl-C or a scheduler, and left nothing half done."""

    exit_code = 130


class MissingExtraError(FlowpatchError, ImportError):
    """An optional engine is asked for but not installed."""


@contextmanager
def needing_extra(extra: str) -> Iterator[None]:
    """Imports of an optional engine go inside this block.

    Raises:
        MissingExtraError: it is not installed; the message says what brings it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "flowpatch":
            raise
        raise MissingExtraError(
            f"This needs '{error.name}', which is not installed: pip install 'flowpatch[{extra}]'."
        ) from None
