"""`flowpatch doctor`: the way to MaxCompute, checked step by step."""

import json
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flowpatch.cli.groups import MAXCOMPUTE
from flowpatch.errors import MaxComputeError, needing_extra
from flowpatch.maxcompute.names import TableName, is_address
from flowpatch.maxcompute.settings import MaxComputeSettings

if TYPE_CHECKING:
    from flowpatch.maxcompute.diagnosis import Finding

_DEFAULT_MAXCOMPUTE = MaxComputeSettings()


def doctor(
    table: str | None = None,
    *,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    maxcompute: Annotated[MaxComputeSettings, MAXCOMPUTE] = _DEFAULT_MAXCOMPUTE,
) -> None:
    """Check the way to MaxCompute: keys, endpoint, project, queries, tables, and a test read.

    Parameters
    ----------
    table
        A table to look at, raw or of samples: odps://PROJECT/TABLE, or its name.
    as_json
        Print JSON instead of lines.
    """
    # Imported here: --help must not wait for the client.
    with needing_extra("maxcompute"):
        from flowpatch.maxcompute.connection import Connection
        from flowpatch.tables.diagnosis import diagnose_all

    project = "" if table is None or is_address(table) else maxcompute.project()
    name = TableName.of_text(table, project) if table else None
    connection = Connection.of_settings(maxcompute, name.project if name else None)
    findings: list[Finding] = []
    for finding in diagnose_all(connection, name):
        findings.append(finding)
        if not as_json:
            print(f"{finding.outcome:6}  {finding.step:10}  {finding.found}", flush=True)
    if as_json:
        print(json.dumps([finding.to_json() for finding in findings], indent=2))
    failed = [finding.step for finding in findings if finding.outcome == "failed"]
    if failed:
        raise MaxComputeError(f"Failed: {', '.join(failed)}. See above what to do.")
