"""CSV files of many plain lines, read once by compiled loops, near the speed of a bare scan.

Plain lines (`plain_lines.py`) are put aside by day (`put_aside.py`); odd ones are copied into
small CSVs, one a file, which DuckDB reads like any other (`record_relation.py`). Both ways read a
plain line alike, so the series is the same. Where the files are not of one plain dialect, or much
is odd in them, there is no `PlainCsv`, and DuckDB reads them all.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import local
from types import TracebackType
from typing import BinaryIO

import duckdb
import numpy as np
from numpy.typing import NDArray

from flowpatch.errors import SourceError
from flowpatch.interruption import raise_if_stop_asked
from flowpatch.progress import say, track
from flowpatch.sources.columns import RecordColumns
from flowpatch.sources.contract import (
    NO_RECORDS,
    KeyColumn,
    NodeIndex,
    NodeRecords,
    RecordBlock,
    Survey,
)
from flowpatch.sources.csv_dialect import Dialect, common_dialect
from flowpatch.sources.engine import name_of, reading
from flowpatch.sources.listing import Listing
from flowpatch.sources.numbering import MOST_COLUMNS, NodeNumbers
from flowpatch.sources.plain_lines import (
    INSTANT,
    KEY_ONE,
    KEY_TWO,
    SHORTEST_LINE,
    SKIPPED,
    TOO_ODD,
    VALUE,
    parse,
)
from flowpatch.sources.put_aside import DayRows, PutAside, day_rows
from flowpatch.sources.record_relation import RecordRelation
from flowpatch.sources.sql import one_of, unused_name
from flowpatch.time_axis import TimeAxis

CHUNK_BYTES = 2_000_000
"""Read at a time: it fits a core's cache, and DuckDB knows no longer line."""
_MOST_ROWS = CHUNK_BYTES // SHORTEST_LINE
_MOST_ODD = _MOST_ROWS // 4
"""Odd lines of one chunk."""

MOST_ODD_SHARE = 0.1
"""With more odd lines than that, DuckDB is sooner done with all of them."""
_SHARE_FROM = 20_000
"""Lines from which on the share is looked at."""


class NotPlainError(Exception):
    """The files are better read by DuckDB; the text says why."""


class PlainCsv:
    """Records read from CSV files: those of plain lines put aside, odd ones in a relation.

    `keys` are those of the node table in which the records put aside have their positions;
    `odd_files` tells from which file the lines of each part of the relation are.
    """

    def __init__(
        self,
        plain: PutAside,
        keys: tuple[KeyColumn, ...],
        odd: RecordRelation | None,
        odd_files: Mapping[str, str],
    ) -> None:
        self._plain, self._keys, self._odd, self._odd_files = plain, keys, odd, odd_files

    def use_threads(self, threads: int) -> None:
        """Reads with so many threads, by default as many as there are cores."""
        if self._odd is not None:
            self._odd.use_threads(threads)

    def close(self) -> None:
        """Closes what it is read from."""
        self._plain.close()
        if self._odd is not None:
            self._odd.close()

    def surveys(self) -> dict[str, Survey]:
        """The records of each file that holds any."""
        found = self._plain.surveys()
        for odd, survey in {} if self._odd is None else self._odd.surveys().items():
            file = self._odd_files[odd]
            found[file] = found.get(file, NO_RECORDS) + survey
        return found

    def blocks(
        self,
        nodes: NodeIndex,
        axis: TimeAxis,
        first_step: int,
        stop_step: int,
        *,
        in_order: bool,
        many: bool = False,
    ) -> Iterator[RecordBlock]:
        """The records of a stretch, each read only once. See `RecordSource.read_blocks`."""
        found = NodeNumbers(nodes).nodes(self._keys)
        yield from self._plain.blocks(found, axis, first_step, stop_step, in_order=in_order)
        if self._odd is not None:
            yield from self._odd.blocks(
                nodes, axis, first_step, stop_step, in_order=in_order, many=many
            )


def read_plain_csv(
    files: Listing, records: RecordRelation, nodes: NodeRecords, folder: Path, leaving: ExitStack
) -> PlainCsv | None:
    """Reads all lines of the files once; None where they are not plain enough.

    Args:
        files: the CSV files.
        records: how DuckDB reads them.
        nodes: the node table, in which keys are looked up.
        folder: an empty one, for what is put aside.
        leaving: closes what is put aside.
    """
    if not _are_known(records.columns, nodes):
        return None
    dialect = common_dialect(records.connection, files)
    roles = None if dialect is None else _roles(dialect, records.columns, files)
    if dialect is None or roles is None:
        return None
    positions = np.arange(len(nodes.keys[0]), dtype=np.int32)
    numbers = NodeNumbers(NodeIndex(nodes.key_columns, nodes.keys, positions))
    plain = leaving.enter_context(PutAside(folder / "plain"))
    try:
        with _OddLines(folder) as odd_lines:
            parser = _Parser(dialect, files.paths[0], roles, numbers)
            _read(files, parser, _cores(records.connection), plain, odd_lines)
        odd = _odd_copy(records, dialect, odd_lines, nodes.keys) if odd_lines.files else None
    except NotPlainError as reason:
        say(f"'{records.place}': {reason}, which takes the slower way of reading")
        return None
    return PlainCsv(plain, nodes.keys, odd, odd_lines.files)


def _are_known(columns: RecordColumns, nodes: NodeRecords) -> bool:
    """Whether compiled loops know such keys and instants, and no record is to be left out."""
    return (
        columns.time_format is None
        and columns.adcode is None
        and len(nodes.keys) <= MOST_COLUMNS
        and all(keys.dtype == np.int64 for keys in nodes.keys)
    )


def _roles(dialect: Dialect, columns: RecordColumns, files: Listing) -> NDArray[np.int64] | None:
    """(F,) what each field is; None where a column is not one of the fields."""
    roles = dict.fromkeys(dialect.columns, SKIPPED)
    used = [*columns.node_columns, columns.time_column, columns.value_column]
    if len(set(used)) < len(used) or not set(used) <= set(roles) - files.folder_columns:
        return None
    kinds = [*(KEY_ONE, KEY_TWO)[: len(columns.node_columns)], INSTANT, VALUE]
    roles.update(zip(used, kinds, strict=True))
    return np.array([roles[name] for name in dialect.columns])


def _cores(connection: duckdb.DuckDBPyConnection) -> int:
    ((threads,),) = connection.sql("SELECT current_setting('threads')").fetchall()
    return int(threads)


class _OddLines:
    """Odd lines as they are, in one CSV for each file that has any: so each is known to be whose.

    `csvs` are these; `files` gives, by the name of each, that of the file whose lines it holds;
    `count` is how many lines there are in all.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.csvs: list[Path] = []
        self.files: dict[str, str] = {}
        self._open = ExitStack()
        self._path: Path | None = None
        self._csv: BinaryIO | None = None

    def add(self, path: Path, lines: bytes, count: int) -> None:
        """Puts aside the lines of a file, of which all come one after the other."""
        if not count:
            return
        if self._csv is None or path != self._path:
            self._csv, self._path = self._next(path), path
        self._csv.write(lines)
        self.count += count

    def _next(self, path: Path) -> BinaryIO:
        self._open.close()
        csv = self.folder / f"odd-{len(self.csvs)}.csv"
        self.csvs.append(csv)
        self.files[name_of(csv)] = name_of(path)
        return self._open.enter_context(csv.open("wb"))

    def __enter__(self) -> "_OddLines":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()


def _odd_copy(
    records: RecordRelation, dialect: Dialect, lines: _OddLines, keys: tuple[KeyColumn, ...]
) -> RecordRelation:
    column = unused_name("file", dialect.columns)
    odd = RecordRelation(
        records.connection,
        dialect.relation(lines.csvs, column),
        records.types,
        records.columns,
        records.place,
        part=one_of(column, lines.files),
    )
    try:
        return odd.typed_copy(lines.folder / "odd.parquet", keys)
    except SourceError as error:
        # Read by DuckDB once more, the error names the line of the file itself.
        raise NotPlainError("a line cannot be read") from error


def _read(
    files: Listing, parser: "_Parser", cores: int, plain: PutAside, odd_lines: _OddLines
) -> None:
    """Puts all records and odd lines aside, in the order of the lines."""
    size_mb = sum(path.stat().st_size for path in files.paths) / 1e6
    under_way: deque[Future[_Parsed]] = deque()
    with (
        track("read", total=size_mb, unit="MB") as task,
        ThreadPoolExecutor(cores, "parsing") as pool,
    ):
        for chunk in _chunks(files):
            under_way.append(pool.submit(parser.parse, chunk))
            if len(under_way) > 2 * cores:
                _put_aside(under_way.popleft().result(), plain, odd_lines)
                _check_share(odd_lines.count, plain.records)
                raise_if_stop_asked()
            task.advance((chunk.stop - chunk.begin) / 1e6)
        while under_way:
            _put_aside(under_way.popleft().result(), plain, odd_lines)
    _check_share(odd_lines.count, plain.records)


def _put_aside(parsed: "_Parsed", plain: PutAside, odd_lines: _OddLines) -> None:
    if parsed.plain is not None:
        plain.add(parsed.plain, name_of(parsed.path))
    odd_lines.add(parsed.path, parsed.odd, parsed.odd_lines)


def _check_share(odd: int, plain: int) -> None:
    lines = odd + plain
    if lines >= _SHARE_FROM and odd > MOST_ODD_SHARE * lines:
        raise NotPlainError(f"{odd:,} of {lines:,} lines hold unusual keys, instants or values")


@dataclass(frozen=True)
class _Chunk:
    """Whole lines of a file."""

    path: Path
    begin: int
    stop: int


def _chunks(files: Listing) -> Iterator[_Chunk]:
    for path in files.paths:
        with reading(str(path)), path.open("rb", buffering=0) as file:
            size = path.stat().st_size
            begin = len(file.readline())
            while begin < size:
                stop = min(begin + CHUNK_BYTES, size)
                if stop < size:
                    stop = _line_end_before(file, begin, stop)
                yield _Chunk(path, begin, stop)
                begin = stop


def _line_end_before(file: BinaryIO, begin: int, stop: int) -> int:
    """Where the last line that ends between `begin` and `stop` does."""
    for look_at in (4096, CHUNK_BYTES):
        first = max(begin, stop - look_at)
        file.seek(first)
        if found := file.read(stop - first).rfind(b"\n") + 1:
            return first + found
    raise NotPlainError(f"there is a line of more than {CHUNK_BYTES:,} bytes")


@dataclass(frozen=True)
class _Parsed:
    """What a chunk of a file holds: the records of its plain lines, its odd lines as they are."""

    path: Path
    plain: DayRows | None
    odd: bytes
    odd_lines: int


class _Buffers(local):
    """What a thread reads into and parses to, made once: new memory costs as much as parsing."""

    def __init__(self) -> None:
        self.bytes = bytearray(CHUNK_BYTES + 2)
        self.data = np.frombuffer(self.bytes, dtype=np.uint8)
        self.one, self.two, self.instant_s = np.empty((3, _MOST_ROWS), dtype=np.int64)
        self.value = np.empty(_MOST_ROWS, dtype=np.float32)
        self.odd = np.empty((_MOST_ODD, 2), dtype=np.int64)


class _Parser:
    """Parses chunks, in several threads at a time.

    A quote means nothing in `known`, the file whose dialect was looked for; it may in another one.
    """

    def __init__(
        self, dialect: Dialect, known: Path, roles: NDArray[np.int64], numbers: NodeNumbers
    ) -> None:
        self._dialect, self._known = dialect, known
        self._roles, self._numbers = roles, numbers
        self._buffers = _Buffers()

    def parse(self, chunk: _Chunk) -> _Parsed:
        own = self._buffers
        size = self._fill(own.data, chunk)
        if chunk.path != self._known and any(own.bytes.find(sign, 0, size) >= 0 for sign in b"\"'"):
            raise NotPlainError(f"'{chunk.path}' holds quotes")
        plain, odd = parse(
            own.data,
            size,
            ord(self._dialect.delimiter),
            self._dialect.line_end == "\r\n",
            self._roles,
            own.one,
            own.two,
            own.instant_s,
            own.value,
            own.odd,
        )
        if TOO_ODD in (plain, odd):
            raise NotPlainError(f"the lines of '{chunk.path}' end in several ways, or most are odd")
        lines = [own.data[begin:stop].tobytes() for begin, stop in own.odd[:odd].tolist()]
        found = self._by_day(own, plain) if plain else None
        return _Parsed(chunk.path, found, b"".join(lines), odd)

    def _by_day(self, own: _Buffers, plain: int) -> DayRows:
        keys = (own.one[:plain], own.two[:plain])[: 1 + int(KEY_TWO in self._roles)]
        return day_rows(self._numbers, keys, own.instant_s[:plain], own.value[:plain])

    def _fill(self, data: NDArray[np.uint8], chunk: _Chunk) -> int:
        """Reads the chunk into `data`, whose last line is ended; gives the bytes there."""
        size = chunk.stop - chunk.begin
        with reading(str(chunk.path)), chunk.path.open("rb") as file:
            file.seek(chunk.begin)
            if file.readinto(data[:size].data) < size:
                raise SourceError(
                    f"'{chunk.path}' became shorter while it was read. Run the command again when "
                    "nothing writes to it any more."
                )
        if data[size - 1] != ord("\n"):
            end = np.frombuffer(self._dialect.line_end.encode(), dtype=np.uint8)
            data[size : size + len(end)] = end
            size += len(end)
        return size
