"""The client's DB-API on the emulator."""

import datetime
from collections.abc import Iterator

import pytest
from odps import ODPS, dbapi
from odps import errors as odps_errors


@pytest.fixture
def cursor(odps: ODPS) -> Iterator[dbapi.Cursor]:
    """A cursor with a table `db` to ask."""
    odps.delete_table("db", if_exists=True)
    table = odps.create_table("db", "id bigint, name string, at datetime")
    moment = datetime.datetime(2024, 1, 1, 12)
    odps.write_table(table, [[1, "a", moment], [2, "it's", None], [3, None, moment]])
    with dbapi.connect(odps) as connection:
        yield connection.cursor()
    odps.delete_table("db")


def test_fetching(cursor: dbapi.Cursor) -> None:
    cursor.execute("select id, name from db order by id limit 10")
    assert [item[:2] for item in cursor.description] == [("id", "bigint"), ("name", "string")]
    assert list(cursor.fetchone()) == [1, "a"]
    assert [list(row) for row in cursor.fetchmany(1)] == [[2, "it's"]]
    assert [list(row) for row in cursor.fetchall()] == [[3, None]]
    assert cursor.fetchone() is None


def test_iteration_and_dates(cursor: dbapi.Cursor) -> None:
    cursor.execute("select at from db where at is not null")
    assert [row[0].hour for row in cursor] == [12, 12]


def test_parameters(cursor: dbapi.Cursor) -> None:
    cursor.execute("select id from db where name = ? and id < ?", ("it's", 5))
    assert [row[0] for row in cursor.fetchall()] == [2]
    cursor.execute("select id from db where name = :name", {"name": "a"})
    assert [row[0] for row in cursor.fetchall()] == [1]


def test_statements_without_rows(cursor: dbapi.Cursor) -> None:
    cursor.execute("create table if not exists db2 (a bigint)")
    cursor.execute("insert into db2 values (4)")
    cursor.execute("select * from db2")
    assert [row[0] for row in cursor.fetchall()] == [4]
    cursor.execute("drop table db2")


def test_errors(cursor: dbapi.Cursor) -> None:
    with pytest.raises(odps_errors.NoSuchTable):
        cursor.execute("select * from nosuch")
