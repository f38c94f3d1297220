"""TensorBoard's events: figures by name and step, each on the disk before the run goes on.

Written here and not by TensorBoard's own writer, whose thread a full disk kills without a word
to the run.
"""

import os
import socket
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from flowpatch.errors import OutputError

_VERSION = "brain.Event:2"


class Events:
    """Writes a file of events of its own in a run's folder of them.

    Args:
        folder: the folder.
        first_step: what earlier files hold from this step on is void: a run was resumed there.

    Raises:
        OutputError: the file system refused a write; so do the methods.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Unbuffered: what cannot be written is told now, and closing has nothing left to do.
            self._file = self._path.open("ab", buffering=0)
        except OSError as error:
            raise self._refused(error) from error
        self._records = RecordWriter(self._file)
        self._write(Event(file_version=_VERSION))
        self._write(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def add(self, name: str, value: float, step: int) -> None:
        """Adds a figure."""
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value)])
        self._write(Event(step=step, summary=summary))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        try:
            self._records.write(event.SerializeToString())
        except OSError as error:
            self.close()
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> OutputError:
        return OutputError(f"Cannot write '{self._path}': {error.strerror}.")
