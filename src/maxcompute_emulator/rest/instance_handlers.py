"""Jobs: submitted as XML, looked at from all sides, stopped."""

from __future__ import annotations

import asyncio
import base64
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

from aiohttp import web

from maxcompute_emulator import errors
from maxcompute_emulator.instances import (
    COST_TASK,
    MERGE_TASK,
    SQL_TASK,
    SUCCESS,
    Instance,
    Instances,
    Task,
)
from maxcompute_emulator.rest.csv_rows import csv_rows
from maxcompute_emulator.rest.paging import listing
from maxcompute_emulator.rest.xml import answer, cdata, element, http_date, json_element
from maxcompute_emulator.sql.scope import TIME_ZONE_SETTING

RESULT_ROWS = 10_000
_QUICK_S = 0.03
_BLOCKING_S = 5.0
_KINDS = {SQL_TASK: "Query", COST_TASK: "Query", MERGE_TASK: "TableName"}


class InstanceHandlers:
    """The requests on `/projects/P/instances`."""

    def __init__(self, instances: Instances, time_zone: str) -> None:
        self._instances = instances
        self._time_zone = time_zone
        self._views: dict[str, Callable[[Instance], web.Response]] = {
            "taskstatus": _task_status,
            "result": self._result,
            "source": lambda job: answer(job.task.source),
            "instanceprogress": _progress,
            "instancesummary": _summary,
            "instancedetail": _detail,
            "detail": _detail,
            "cached": lambda _: web.json_response({}),
            "instancequota": lambda _: web.json_response({}),
            "info": lambda _: web.json_response({"warnings": []}),
            "log": lambda _: web.Response(text=""),
        }

    async def submit(self, request: web.Request) -> web.Response:
        """Start a job. A query that fails is a job that failed, not a refused request."""
        body = await request.read()
        project = request.match_info["project"]
        task = await asyncio.to_thread(read_task, body)
        schema = request.query.get("curr_schema")
        job = await asyncio.to_thread(self._instances.submit, project, schema, task)
        # A quick job has ended by the time that the client first asks.
        await asyncio.to_thread(job.done.wait, _QUICK_S)
        place = f"http://{request.host}/api/projects/{project}/instances/{job.id}"
        return web.Response(status=201, headers={"Location": place, "x-odps-owner": job.owner})

    async def list(self, request: web.Request) -> web.Response:
        """Jobs, by status and by when they started."""
        status, span = request.query.get("status"), request.query.get("daterange", ":")
        first, _, last = span.partition(":")
        jobs = [
            job
            for job in self._instances.of_project(request.match_info["project"])
            if status in (None, _status(job))
            and (not first or job.started >= float(first))
            and (not last or job.started <= float(last))
        ]
        return answer(listing(request, "Instances", jobs, _listed))

    async def queue(self, _request: web.Request) -> web.Response:
        """Jobs that wait: none."""
        return answer(element("Instances", element("Marker", text=""), element("Content", "[]")))

    async def get(self, request: web.Request) -> web.Response:
        """One job, from the side that the query names."""
        place = request.match_info
        job = self._instances.get(place["project"], place["instance"])
        for name, view in self._views.items():
            if name in request.query:
                return await asyncio.to_thread(view, job)
        wait = _BLOCKING_S if "instancestatus" in request.query else _QUICK_S
        await asyncio.to_thread(job.done.wait, wait)
        return answer(
            element("Instance", element("Status", text=_status(job))), headers=_times(job)
        )

    async def put(self, request: web.Request) -> web.Response:
        """Stop a job, or leave a note on a task, which nobody reads."""
        place = request.match_info
        job = self._instances.get(place["project"], place["instance"])
        body = await request.read()
        if "info" in request.query:
            return web.Response(headers={"Location": str(request.url)})
        if b"Terminated" not in body:
            raise errors.invalid_state_setting("A job can only be set to Terminated.")
        await asyncio.to_thread(job.stop)
        return web.Response()

    def _result(self, job: Instance) -> web.Response:
        job.done.wait()
        described: dict[str, object] = {"IsSelect": False}
        body, shape = job.text.encode(), "text"
        if job.status == SUCCESS and job.holds_rows():
            snapshot = job.result_snapshot()
            rows = snapshot.read(0, RESULT_ROWS)
            zone = job.task.settings.get(TIME_ZONE_SETTING) or self._time_zone
            body, shape = csv_rows(job.columns, rows, zone), "csv"
            cut = snapshot.record_count > RESULT_ROWS
            described = {"IsSelect": True, "SelectResultStatus": "TRUNCATED" if cut else "ALL"}
        encoded = base64.b64encode(body).decode()
        task = element(
            "Task",
            element("Name", text=job.task.name),
            element("Result", cdata(encoded), Transform="Base64", Format=shape),
            element("Status", text=job.status),
            json_element("ResultDescriptor", described),
            Type=job.task.kind,
        )
        return answer(element("Instance", element("Tasks", task)))


def read_task(body: bytes) -> Task:
    """The one task of a submitted job.

    Raises:
        ServiceError: The body is no job, or asks for something that is not carried.
    """
    try:
        root = ElementTree.fromstring(body)  # noqa: S314
    except ElementTree.ParseError:
        raise errors.invalid_argument("The body is no XML.") from None
    if root.find("XflowInstance") is not None:
        raise errors.unsupported("XFlow jobs")
    job = root.find("Job")
    tasks = job.find("Tasks") if job is not None else None
    if job is None or tasks is None or len(tasks) != 1:
        raise errors.invalid_argument("A job needs exactly one task.")
    task = tasks[0]
    if task.tag not in _KINDS:
        raise errors.unsupported(f"tasks of kind {task.tag}")
    properties = {
        item.findtext("Name") or "": item.findtext("Value") or ""
        for item in task.findall("Config/Property")
    }
    return Task(
        kind=task.tag,
        name=task.findtext("Name") or f"Anonymous{task.tag}Task",
        text=task.findtext(_KINDS[task.tag]) or "",
        settings=_settings(properties.get("settings", "")),
        source=ElementTree.tostring(job, encoding="unicode"),
        priority=int(job.findtext("Priority") or 9),
        guid=job.findtext("Guid") or None,
    )


def _settings(text: str) -> dict[str, str]:
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        raise errors.invalid_argument("'settings' is no JSON.") from None
    return {
        str(key): str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in found.items()
    }


def _status(job: Instance) -> str:
    return "Terminated" if job.done.is_set() else "Running"


def _times(job: Instance) -> dict[str, str]:
    return {
        "x-odps-owner": job.owner,
        "x-odps-start-time": http_date(job.started),
        "x-odps-end-time": http_date(job.ended) if job.ended else "",
    }


def _listed(job: Instance) -> str:
    return element(
        "Instance",
        element("Name", text=job.id),
        element("Owner", text=job.owner),
        element("StartTime", text=http_date(job.started)),
        element("EndTime", text=http_date(job.ended) if job.ended else ""),
        element("Status", text=_status(job)),
    )


def _task_status(job: Instance) -> web.Response:
    task = element(
        "Task",
        element("Name", text=job.task.name),
        element("StartTime", text=http_date(job.started)),
        element("EndTime", text=http_date(job.ended) if job.ended else ""),
        element("Status", text=job.status),
        element("Histories"),
        Type=job.task.kind,
    )
    body = element("Instance", element("Status", text=_status(job)), element("Tasks", task))
    return answer(body, headers=_times(job))


def _progress(job: Instance) -> web.Response:
    ended = int(job.done.is_set())
    numbers = {
        "BackupWorkers": 0,
        "TerminatedWorkers": ended,
        "RunningWorkers": 1 - ended,
        "TotalWorkers": 1,
        "InputRecords": 0,
        "OutputRecords": 0,
        "FinishedPercentage": 100 * ended,
    }
    stage = element(
        "Stage", *(element(name, text=number) for name, number in numbers.items()), ID="M1_job_0"
    )
    return answer(element("Progress", stage))


def _summary(job: Instance) -> web.Response:
    seconds = (job.ended or job.started) - job.started
    summary = {
        "Cost": {"CPU": int(100 * seconds), "Memory": int(1024 * seconds), "Input": 0},
        "Status": job.status,
    }
    text = f"resource cost: cpu {seconds / 60:.2f} Core * Min"
    body = {"Instance": {"JsonSummary": json.dumps(summary), "Summary": text}}
    headers = {"x-odps-task-finalized": str(job.done.is_set()).lower()}
    return web.json_response(body, headers=headers)


def _detail(job: Instance) -> web.Response:
    stage = {"name": "M1_job_0", "status": job.status, "instances": []}
    return web.json_response({"Instance": {"Stages": [stage], "Name": job.task.name}})
