"""What every kind of place does, whatever stands behind it."""

import pytest

from flowpatch.errors import StoreNotFoundError
from flowpatch.places.place import place_of
from place_kinds import Kind


def test_a_new_place_is_empty(kind: Kind) -> None:
    place = kind.place()
    assert not place.exists(StoreNotFoundError)
    assert not place.holds_store()
    assert list(place.names()) == []
    assert (place.name, str(place), place.address) == ("s", kind.address("s"), kind.address("s"))
    assert place_of(place.absolute_address).name == place_of(place.path).name == "s"


def test_what_is_written_is_read_and_counted(kind: Kind) -> None:
    place = kind.place()
    place.prepare()
    written = {"a": b"", "b/c": b"12345", "b/d/e": bytes(range(256)), "refs": b"x"}
    for name, content in written.items():
        place.write(name, content)
    assert {name: place.read(name) for name in place.names()} == written
    assert place.total_bytes() == sum(map(len, written.values()))
    assert place.exists(StoreNotFoundError)
    assert place.is_container()
    place.check_reachable()


def test_an_object_is_written_over(kind: Kind) -> None:
    place = kind.place()
    place.write("a", b"1")
    place.write("a", b"23")
    assert place.read("a") == b"23"
    assert list(place.names()) == ["a"]


def test_an_object_that_is_not_there_is_not_found(kind: Kind) -> None:
    kind.place().write("a", b"1")
    with pytest.raises(FileNotFoundError):
        kind.place().read("b")


@pytest.mark.parametrize(
    ("under", "found"),
    [("b/", ["b/c", "b/d/e"]), ("b/d/", ["b/d/e"]), ("a", ["a"]), ("x/", []), ("x", [])],
)
def test_names_below_a_name(kind: Kind, under: str, found: list[str]) -> None:
    place = kind.place()
    for name in ("a", "ab", "b/c", "b/d/e", "bc/f"):
        place.write(name, b"1")
    assert sorted(place.names(under)) == found


@pytest.mark.parametrize(
    ("name", "holds"),
    [("refs/branch.main/ref.json", True), ("repo", True), ("repository.txt", False), ("x", False)],
)
def test_a_store_is_told_by_its_names(kind: Kind, name: str, holds: bool) -> None:
    place = kind.place()
    place.write(name, b"{}")
    assert place.holds_store() == holds


def test_the_places_below_come_in_order_without_hidden_ones(kind: Kind) -> None:
    place = kind.place("all")
    for name in ("b/x", "a/y/z", ".c/x", "file", "杭州.store/x"):
        place.write(name, b"1")
    below = list(place.places())
    assert [found.name for found in below] == ["a", "b", "杭州.store"]
    assert below[0].address == f"{kind.address('all')}/a"
    assert list(below[0].names()) == ["y/z"]


def test_removing_leaves_the_neighbours(kind: Kind) -> None:
    for name in ("s", "s2", "s.x"):
        kind.place(name).write("a/b", b"1")
    kind.place("s").remove()
    assert not kind.place("s").exists(StoreNotFoundError)
    assert all(kind.place(name).read("a/b") == b"1" for name in ("s2", "s.x"))


def test_more_objects_than_one_answer_or_request_holds(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "4")
    monkeypatch.setattr("flowpatch.places.object_store._BATCH", 3)
    place = kind.place()
    names = [f"d/{number}" for number in range(10)]
    for name in names:
        place.write(name, b"1")
    assert sorted(place.names("d/")) == names
    assert place.total_bytes() == 10
    place.remove()
    assert list(place.names()) == []


def test_an_object_is_discarded_and_no_other(kind: Kind) -> None:
    place = kind.place()
    for name in ("a/one", "a/two"):
        place.write(name, b"1")
    place.discard("a/one")
    place.discard("a/never")
    assert sorted(place.names()) == ["a/two"]
