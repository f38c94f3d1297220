"""What the service answers when it refuses: one exception, and a maker for each real code.

REST and tunnel render the same error in different shapes (XML and JSON); that is the server's
matter. The codes are those that the real client maps to its exception classes.
"""

from __future__ import annotations

NOT_FOUND = 404
BAD_REQUEST = 400
CONFLICT = 409


class ServiceError(Exception):
    """A request that the service refuses.

    Attributes:
        code: The service's error code, such as `ODPS-0130131` or `NoSuchPartition`.
        message: Text for a person.
        status: HTTP status that a request refused with this error is answered by.
    """

    def __init__(self, code: str, message: str, status: int = BAD_REQUEST) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


# Objects that are not there, or already are.


def no_such_project(name: str) -> ServiceError:
    """The project is unknown."""
    message = f"ODPS-0420111: Project not found - '{name}'."
    return ServiceError("NoSuchProject", message, NOT_FOUND)


def no_such_schema(name: str) -> ServiceError:
    """The schema is unknown."""
    return ServiceError("NoSuchSchema", f"The specified schema '{name}' is not found.", NOT_FOUND)


def no_such_table(name: str) -> ServiceError:
    """The table is unknown, in the words of a query's compiler."""
    return ServiceError("ODPS-0130131", f"Table not found - table {name} cannot be resolved", 404)


def no_such_object(kind: str, name: str) -> ServiceError:
    """An instance, function, resource or another object is unknown."""
    return ServiceError("NoSuchObject", f"{kind} not found - '{name}'.", NOT_FOUND)


def no_such_partition(spec: str) -> ServiceError:
    """The partition is unknown."""
    message = f"The specified partition does not exist - {spec}"
    return ServiceError("NoSuchPartition", message, NOT_FOUND)


def table_exists(name: str) -> ServiceError:
    """A table or view of this name is there already."""
    return ServiceError("ODPS-0110061", f"Failed to run ddltask - table {name} already exists.")


def partition_exists(spec: str) -> ServiceError:
    """A partition of this specification is there already."""
    message = f"Failed to run ddltask - partition already exists, the specified partition is {spec}"
    return ServiceError("ODPS-0110061", message)


def object_exists(kind: str, name: str) -> ServiceError:
    """A schema or another object of this name is there already."""
    return ServiceError("ObjectAlreadyExists", f"{kind} '{name}' already exists.", CONFLICT)


# Requests and queries that make no sense.


def invalid_argument(message: str) -> ServiceError:
    """A parameter of the request is wrong."""
    return ServiceError("InvalidArgument", message)


def invalid_column_name(name: str) -> ServiceError:
    """A request names a column that the table does not have."""
    return ServiceError("InvalidColumnSpec", f"The specified column name '{name}' is not found.")


def parse_error(message: str, line: int = 1, column: int = 1) -> ServiceError:
    """A query that is not SQL."""
    return ServiceError("ODPS-0130161", f"[{line},{column}] Parse exception - {message}")


def semantic_error(message: str, line: int = 1, column: int = 1) -> ServiceError:
    """A query that is SQL, but breaks a rule."""
    text = f"[{line},{column}] Semantic analysis exception - {message}"
    return ServiceError("ODPS-0130071", text)


def unsupported(message: str) -> ServiceError:
    """A query that the service would run and the emulator cannot."""
    text = f"Feature not supported - {message} (the emulator does not carry this)"
    return ServiceError("ODPS-0130241", text)


def ddl_error(message: str) -> ServiceError:
    """A change of a table that its present shape does not allow."""
    return ServiceError("ODPS-0110061", f"Failed to run ddltask - {message}")


def invalid_value(message: str) -> ServiceError:
    """A value that a function or a cast cannot take, met while a query runs."""
    return ServiceError("ODPS-0123055", f"User script exception - {message}")


def invalid_type(text: str) -> ServiceError:
    """A data type that does not exist, or a parameter outside of what it allows."""
    message = (
        f"data type '{text}' is unknown or out of range. Allowed: tinyint, smallint, int, bigint, "
        "float, double, decimal(p,s), string, char(n), varchar(n), binary, boolean, date, "
        "datetime, timestamp, timestamp_ntz, interval_day_time, interval_year_month, json, void, "
        "array<T>, map<K,V>, struct<name:T,...>."
    )
    return ServiceError("ODPS-0130161", f"[1,1] Parse exception - {message}")


def no_permission(message: str) -> ServiceError:
    """The account may not do this."""
    return ServiceError("NoPermission", f"ODPS-0130013:Authorization exception - {message}", 403)


def method_not_allowed(method: str, path: str) -> ServiceError:
    """The path exists, the verb on it does not."""
    return ServiceError("MethodNotAllowed", f"{method} is not allowed on {path}.", 405)


def internal_error(message: str) -> ServiceError:
    """The emulator itself failed."""
    return ServiceError("ODPS-0010000", f"System internal error - {message}", 500)


# Tunnel sessions and their data.


def no_such_download(session_id: str) -> ServiceError:
    """The download session is unknown."""
    message = f"The specified download id '{session_id}' does not exist."
    return ServiceError("NoSuchDownload", message, NOT_FOUND)


def no_such_upload(session_id: str) -> ServiceError:
    """The upload session is unknown."""
    message = f"The specified upload id '{session_id}' does not exist."
    return ServiceError("NoSuchUpload", message, NOT_FOUND)


def status_conflict(message: str) -> ServiceError:
    """The session has expired, was committed already, or misses what is to be committed."""
    return ServiceError("StatusConflict", message, CONFLICT)


def invalid_row_range(start: int, count: int, total: int) -> ServiceError:
    """A download asks for rows that the session does not have."""
    message = f"The specified row range is not valid: start {start}, count {count} of {total} rows."
    return ServiceError("InvalidRowRange", message)


def missing_partition_spec(name: str) -> ServiceError:
    """A session on a partitioned table names no complete partition."""
    message = f"You need to specify a partitionspec along with the specified table '{name}'."
    return ServiceError("MissingPartitionSpec", message)


def invalid_partition_spec(spec: str) -> ServiceError:
    """A partition specification that does not fit the table."""
    message = f"The specified partitionspec is not valid - {spec}"
    return ServiceError("InvalidPartitionSpec", message)


def table_modified(name: str) -> ServiceError:
    """The data changed after the session was opened."""
    message = f"The specified table '{name}' has been modified since the download initiated."
    return ServiceError("TableModified", message, CONFLICT)


def malformed_data_stream(message: str) -> ServiceError:
    """The rows of a request cannot be read."""
    return ServiceError("MalformedDataStream", message)


def cell_too_large(column: str, size: int, limit: int) -> ServiceError:
    """A cell exceeds what the service holds."""
    message = f"The value of column '{column}' has {size} bytes; a cell holds at most {limit}."
    return ServiceError("MalformedDataStream", message)


def instance_type_not_supported(instance_id: str) -> ServiceError:
    """The instance's result is text, not a table that the tunnel can read."""
    message = f"Instance '{instance_id}' is not a SQL query with a result set."
    return ServiceError("InstanceTypeNotSupported", message)


def invalid_state_setting(message: str) -> ServiceError:
    """A state that an instance cannot be put in."""
    return ServiceError("InvalidStateSetting", message, CONFLICT)
