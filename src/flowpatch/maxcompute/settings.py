"""The flags that every command on MaxCompute shares."""

import os
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from flowpatch.errors import SettingsError
from flowpatch.maxcompute.names import check_name
from flowpatch.settings import Settings

Pushdown = Literal["auto", "sql", "tunnel"]

ENDPOINT_VARIABLE = "ODPS_ENDPOINT"
PROJECT_VARIABLE = "ODPS_PROJECT"
MOST_WORKERS = 64
"""Processes of one command."""


class MaxComputeAccess(Settings):
    """How MaxCompute is reached, and how hard it is tried."""

    odps_endpoint: str | None = None
    """MaxCompute's endpoint, an http(s) URL ending in /api; by default $ODPS_ENDPOINT."""
    odps_tunnel_endpoint: str | None = None
    """The tunnel's endpoint; by default the one that the service names."""
    odps_project: str | None = None
    """Project that runs queries; by default that of the table, or $ODPS_PROJECT."""
    patience_minutes: Annotated[float, Field(gt=0)] = 10.0
    """Minutes without any progress after which MaxCompute is given up."""

    @field_validator("odps_endpoint", "odps_tunnel_endpoint")
    @classmethod
    def _check_endpoint(cls, endpoint: str | None) -> str | None:
        return None if endpoint is None else check_endpoint(endpoint)

    @field_validator("odps_project")
    @classmethod
    def _check_project(cls, project: str | None) -> str | None:
        return None if project is None else check_name(project, "project")

    def with_endpoint(self, endpoint: str) -> Self:
        """The same, with an endpoint where neither flag nor environment names one."""
        if self.odps_endpoint or os.environ.get(ENDPOINT_VARIABLE):
            return self
        return self.replace(odps_endpoint=endpoint)

    def project(self) -> str:
        """The project named by flag or environment.

        Raises:
            SettingsError: none is.
        """
        found = self.odps_project or os.environ.get(PROJECT_VARIABLE)
        if not found:
            raise SettingsError(
                f"No project is named. Give --odps-project, or ${PROJECT_VARIABLE}."
            )
        return check_name(found, "project")

    def endpoint(self) -> str:
        """The endpoint named by flag or environment.

        Raises:
            SettingsError: none is.
        """
        found = self.odps_endpoint or os.environ.get(ENDPOINT_VARIABLE)
        if not found:
            raise SettingsError(
                f"No endpoint is named. Give --odps-endpoint, or ${ENDPOINT_VARIABLE}, such as "
                "http://service.cn-beijing.maxcompute.aliyun.com/api."
            )
        return check_endpoint(found)


class MaxComputeSettings(MaxComputeAccess):
    """How MaxCompute is reached, and by how many processes."""

    workers: Annotated[int | None, Field(ge=1, le=MOST_WORKERS)] = None
    """Processes that read or write the tunnel at once, 10 MB/s each; by default twice the cores,
    8 at most."""

    @property
    def parallel(self) -> int:
        """Processes that read or write at once."""
        return self.workers or min(8, 2 * (os.cpu_count() or 1))


def check_endpoint(endpoint: str) -> str:
    """The endpoint itself, without a slash at its end.

    Raises:
        SettingsError: it is no http(s) URL, or has a user's name or key in it.
    """
    parts = urlsplit(endpoint)
    if parts.username or parts.password or "@" in parts.netloc:
        raise SettingsError(
            "An endpoint holds no keys: leave out what stands before the @. Keys are read from "
            "the environment."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise SettingsError(
            f"'{endpoint}' is no endpoint. Write an http(s) URL such as "
            "http://service.cn-beijing.maxcompute.aliyun.com/api."
        )
    return endpoint.rstrip("/")
