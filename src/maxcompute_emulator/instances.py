"""Queries as jobs: submitted, run in threads, looked at, stopped, and forgotten in the end."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import duckdb

from maxcompute_emulator import errors
from maxcompute_emulator.errors import ServiceError
from maxcompute_emulator.sql import Outcome, execute, input_bytes
from maxcompute_emulator.types import Column
from maxcompute_emulator.warehouse import Snapshot, Warehouse

SQL_TASK = "SQL"
COST_TASK = "SQLCost"
MERGE_TASK = "Merge"
RUNNING, SUCCESS, FAILED, CANCELLED = "Running", "Success", "Failed", "Cancelled"

_THREADS = 8
_MAX_INSTANCES = 2000
_MAX_RESULTS = 200
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What a job asks for.

    Attributes:
        kind: `SQL`, `SQLCost` or `Merge`.
        name: The client's name for it.
        text: The script, or for a merge the table.
        settings: Hints.
        source: The job's XML, which the client may ask back.
        priority: As the client set it.
        guid: The client's own id of the job: submitted again, it is the same job.
    """

    kind: str
    name: str
    text: str
    settings: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    priority: int = 9
    guid: str | None = None


class Instance:
    """One submitted job. Times are seconds since 1970, in UTC."""

    def __init__(self, warehouse: Warehouse, project: str, schema: str | None, task: Task) -> None:
        self.id = uuid.uuid4().hex[:24]
        self.project = project
        self.schema = schema
        self.task = task
        self.owner = warehouse.owner
        self.started = warehouse.clock()
        self.ended: float | None = None
        self.status = RUNNING
        self.text = ""
        self.done = threading.Event()
        self._warehouse = warehouse
        self._lock = threading.Lock()
        self._outcome = Outcome()
        self._cursor: duckdb.DuckDBPyConnection | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """Columns of the result; none where the result is text."""
        rows = self._outcome.rows
        return tuple(stored.column for stored in rows.columns) if rows else ()

    def result_snapshot(self) -> Snapshot:
        """The rows of a query, once it has run.

        Raises:
            ServiceError: It failed, was stopped, or its result is text.
        """
        self.done.wait()
        rows = self._outcome.rows
        if self.status != SUCCESS or rows is None:
            raise errors.instance_type_not_supported(self.id)
        return rows.snapshot(self._warehouse)

    def run(self) -> None:
        """Do the task; what goes wrong becomes the instance's status and text."""
        if self.status != RUNNING:
            return
        try:
            outcome = self._run()
            self._finish(SUCCESS, outcome)
        except ServiceError as error:
            self._finish(FAILED, Outcome(_failure(error)))
        except Exception as error:
            _log.exception("instance %s", self.id)
            self._finish(FAILED, Outcome(_failure(errors.internal_error(str(error)))))

    def _run(self) -> Outcome:
        task, warehouse = self.task, self._warehouse
        if task.kind == MERGE_TASK:
            names = task.text.replace("`", "").split(" ")[0].split(".")
            schema = names[1] if len(names) == 3 else self.schema
            warehouse.table(self.project, schema, names[-1])
            return Outcome()
        if task.kind == COST_TASK:
            size = input_bytes(warehouse, self.project, self.schema, task.text, task.settings)
            cost = f'{{"Cost": {{"SQL": {{"Complexity": 1.0, "Input": {size}, "UDF": 0}}}}}}'
            return Outcome(cost)
        return execute(warehouse, self.project, self.schema, task.text, task.settings, self._watch)

    def stop(self) -> None:
        """Stop the job; its query is interrupted.

        Raises:
            ServiceError: It has ended already.
        """
        with self._lock:
            if self.done.is_set():
                message = f"Instance '{self.id}' has ended and cannot be stopped."
                raise errors.invalid_state_setting(message)
            cursor = self._cursor
        self._finish(CANCELLED, Outcome("ODPS-0130252:Instance has been cancelled."))
        if cursor is not None:
            with suppress(duckdb.Error):
                cursor.interrupt()

    def forget(self) -> None:
        """Drop the rows of the result."""
        with self._lock:
            rows, self._outcome = self._outcome.rows, Outcome(self.text)
        if rows:
            self._warehouse.storage.drop(rows.segments)

    def holds_rows(self) -> bool:
        """Whether the result is rows that are still there."""
        return self._outcome.rows is not None

    def _watch(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor
        if self.status != RUNNING:
            raise ServiceError("ODPS-0130252", "Instance has been cancelled.")

    def _finish(self, status: str, outcome: Outcome) -> None:
        with self._lock:
            self._cursor = None
            late = self.done.is_set()
            if not late:
                self.status, self._outcome, self.text = status, outcome, outcome.text
                self.ended = self._warehouse.clock()
                self.done.set()
        if late and outcome.rows:
            self._warehouse.storage.drop(outcome.rows.segments)


class Instances:
    """All jobs; old ones are forgotten, and the rows of old results before them."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._lock = threading.Lock()
        self._instances: dict[str, Instance] = {}
        self._pool = ThreadPoolExecutor(_THREADS, "maxcompute-instance")

    def submit(
        self,
        project: str,
        schema: str | None,
        sql: str | Task,
        hints: Mapping[str, str] | None = None,
    ) -> Instance:
        """Start a job.

        Args:
            project: Where it runs.
            schema: Where plain names of tables are looked up.
            sql: A script, or a task of any kind.
            hints: Settings of a script.

        Raises:
            ServiceError: There is no such project.
        """
        if not self._warehouse.has_project(project):
            raise errors.no_such_project(project)
        task = (
            sql if isinstance(sql, Task) else Task(SQL_TASK, "AnonymousSQLTask", sql, hints or {})
        )
        instance = Instance(self._warehouse, project, schema, task)
        with self._lock:
            if known := self._of_guid(task.guid):
                return known
            self._instances[instance.id] = instance
            forgotten = self._to_forget()
        for old in forgotten:
            old.forget()
        self._pool.submit(instance.run)
        return instance

    def get(self, project: str, instance_id: str) -> Instance:
        """One job.

        Raises:
            ServiceError: It never was, or has been forgotten.
        """
        with self._lock:
            found = self._instances.get(instance_id)
        if found is None or found.project.lower() != project.lower():
            raise errors.no_such_object("Instance", instance_id)
        return found

    def of_project(self, project: str) -> list[Instance]:
        """The jobs of a project, the newest first."""
        with self._lock:
            mine = [item for item in self._instances.values() if item.project == project]
        return mine[::-1]

    def _of_guid(self, guid: str | None) -> Instance | None:
        jobs = self._instances.values() if guid else ()
        return next((job for job in jobs if job.task.guid == guid), None)

    def _to_forget(self) -> list[Instance]:
        """Jobs whose rows are to go; the oldest of them leave the list as well."""
        ended = [item for item in self._instances.values() if item.done.is_set()]
        for old in ended[: max(0, len(self._instances) - _MAX_INSTANCES)]:
            del self._instances[old.id]
        holding = [item for item in ended if item.holds_rows()]
        return [
            *(item for item in holding if item.id not in self._instances),
            *holding[: max(0, len(holding) - _MAX_RESULTS)],
        ]


def _failure(error: ServiceError) -> str:
    """The text of a failed task, from which the client tells the code."""
    if error.code.startswith("ODPS-"):
        return f"{error.code}:{error.message}"
    return f"ODPS-0130071:[1,1] Semantic analysis exception - {error.code}: {error.message}"
