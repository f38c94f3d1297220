"""Names and literals: what is hostile is refused, or cannot end its quotation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowpatch.errors import SettingsError
from flowpatch.maxcompute.names import TableName, check_code, column, partition_spec, text

HOSTILE = [
    "a; DROP TABLE b",
    "a'b",
    'a"b',
    "a`b",
    "../b",
    "a\nb",
    "",
    "a b",
    "a--b",
    "a/*b*/",
    "1a",
    "a" * 200,
    "表",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tables_projects_and_schemas_are_refused(name: str) -> None:
    for parts in [("p", name, None), (name, "t", None), ("p", "t", name)]:
        with pytest.raises(SettingsError):
            TableName(*parts)


@pytest.mark.parametrize("name", ["a`b", "a b", "a;b", "", "a'b", "a\n", "a.b"])
def test_hostile_columns_are_refused(name: str) -> None:
    with pytest.raises(SettingsError):
        column(name)


@pytest.mark.parametrize("code", ["1' OR '1'='1", "", "a b", "1;2", "x" * 65])
def test_hostile_codes_are_refused(code: str) -> None:
    with pytest.raises(SettingsError, match="--adcode"):
        check_code(code, "--adcode")


@pytest.mark.parametrize("value", ["x' OR ds > '", "a,b='c", "", "a/b", "a\nb"])
def test_hostile_partitions_are_refused(value: str) -> None:
    with pytest.raises(SettingsError):
        partition_spec({"ds": value})


@given(value=st.text())
def test_a_literal_ends_where_it_should(value: str) -> None:
    literal = text(value)
    assert literal[0] == literal[-1] == "'"
    unescaped, inside = "", iter(literal[1:-1])
    for character in inside:
        assert character != "'", "the literal ends too early"
        unescaped += next(inside) if character == "\\" else character
    assert unescaped == value


@pytest.mark.parametrize(
    ("address", "sql"),
    [("odps://p/t", "`p`.`t`"), ("odps://p/s/t", "`p`.`s`.`t`")],
)
def test_an_address_names_a_table(address: str, sql: str) -> None:
    table = TableName.of_address(address)
    assert table.sql == sql
    assert table.address == address


@pytest.mark.parametrize("address", ["odps://", "odps://p", "odps://p/", "odps://a/b/c/d", "p/t"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(SettingsError):
        TableName.of_address(address)


def test_a_name_may_leave_out_its_project() -> None:
    assert TableName.of_text("t", "p").address == "odps://p/t"
    assert TableName.of_text("s.t", "p").address == "odps://p/s/t"
    assert TableName.of_text("q.s.t", "p").address == "odps://q/s/t"
    assert TableName.of_text("odps://q/t", "p").address == "odps://q/t"
