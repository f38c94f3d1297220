"""Projects and their schemas, and the changes that they allow."""

from __future__ import annotations

import threading
from collections.abc import Callable

from maxcompute_emulator import errors
from maxcompute_emulator.warehouse.catalog import Catalog, SchemaRecord
from maxcompute_emulator.warehouse.records import DEFAULT_SCHEMA
from maxcompute_emulator.warehouse.storage import Storage


class Projects:
    """What a warehouse knows of projects and schemas.

    Attributes:
        storage: The database.
        owner: The account that owns everything.
        clock: Seconds since 1970.
    """

    def __init__(self, storage: Storage, owner: str, clock: Callable[[], float]) -> None:
        self.storage = storage
        self.owner = owner
        self.clock = clock
        self._lock = threading.RLock()
        self._catalog = Catalog(storage, owner)

    def projects(self) -> dict[str, float]:
        """Names, and when each was made."""
        with self._lock:
            return {name: project.created for name, project in self._catalog.projects.items()}

    def has_project(self, name: str) -> bool:
        """Whether the project is there."""
        return name.lower() in self._catalog.projects

    def add_project(self, name: str) -> None:
        """Make a project, unless it is there."""
        with self._lock:
            if self.has_project(name):
                return
            self._catalog.add_project(name, self.clock())

    def schemas(self, project: str) -> list[SchemaRecord]:
        """The schemas of a project, by name."""
        with self._lock:
            return sorted(
                self._catalog.project(project).schemas.values(), key=lambda item: item.name
            )

    def schema(self, project: str, name: str) -> SchemaRecord:
        """One schema.

        Raises:
            ServiceError: There is none of this name.
        """
        with self._lock:
            found = self._catalog.project(project).schemas.get(name.lower())
        if found is None:
            raise errors.no_such_schema(name)
        return found

    def create_schema(self, project: str, name: str, comment: str = "") -> None:
        """Make a schema.

        Raises:
            ServiceError: There is one of this name.
        """
        with self._lock:
            schemas = self._catalog.project(project).schemas
            if name.lower() in schemas:
                raise errors.object_exists("Schema", name)
            made = SchemaRecord(name.lower(), self.owner, comment, self.clock())
            self._catalog.add_schema(project, made)

    def drop_schema(self, project: str, name: str) -> None:
        """Drop an empty schema.

        Raises:
            ServiceError: It is missing, is `default`, or holds tables.
        """
        with self._lock:
            owner = self._catalog.project(project)
            self.schema(project, name)
            if name.lower() == DEFAULT_SCHEMA or any(
                schema == name.lower() for schema, _ in owner.tables
            ):
                raise errors.invalid_argument(f"Schema '{name}' is not empty or cannot be dropped.")
            self._catalog.drop_schema(project, name)
