"""The exception tree: the drawing at the top of errors.py is the classes that there are."""

import inspect
import re
import subprocess
import sys

import pytest

from flowpatch import errors
from flowpatch.errors import FlowpatchError

CLASSES = {
    name: found
    for name, found in vars(errors).items()
    if inspect.isclass(found) and issubclass(found, FlowpatchError)
}


def drawn_tree() -> dict[str, tuple[str | None, str | None]]:
    """Name -> (name of the parent, name of the builtin base) as the docstring draws them."""
    tree: dict[str, tuple[str | None, str | None]] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^ {4}([│ ├└─]*)([A-Z]\w+)(?: \((\w+)\))?(?:\s|$)", line)
        if not found:
            continue
        depth = len(found[1]) // 4
        above[depth:] = [found[2]]
        tree[found[2]] = (above[depth - 1] if depth else None, found[3])
    return tree


def test_the_drawing_names_every_class_and_no_other() -> None:
    assert set(drawn_tree()) == set(CLASSES)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_class_has_the_bases_that_are_drawn(name: str) -> None:
    parent, builtin = drawn_tree()[name]
    bases = tuple(base.__name__ for base in CLASSES[name].__bases__)
    assert bases == tuple(base for base in (parent or "Exception", builtin) if base)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_builtin_base_is_a_builtin_exception(name: str) -> None:
    builtin = drawn_tree()[name][1]
    assert builtin is None or issubclass(getattr(__import__("builtins"), builtin), Exception)


def test_the_exit_code_is_2_for_misuse_130_for_a_stop_and_1_for_all_else() -> None:
    codes = {name: found.exit_code for name, found in CLASSES.items()}
    assert codes.pop("SettingsError") == 2
    assert codes.pop("StoppedByUser") == 130
    assert set(codes.values()) == {1}


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_the_message_is_kept_as_it_was_given(name: str) -> None:
    """KeyError quotes its message and OSError may take its arguments apart: none of ours does."""
    message = "No column 'a'. Allowed: b."
    assert str(CLASSES[name](message)) == message


def test_the_errors_can_be_imported_without_anything_else() -> None:
    program = (
        "import sys, flowpatch.errors; "
        "print([m for m in ('numpy', 'torch', 'pydantic', 'duckdb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
