"""Lists in pages: `marker` names the last item of the page before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from aiohttp import web

from maxcompute_emulator import errors
from maxcompute_emulator.rest.xml import element

Item = TypeVar("Item")

_PAGE = 1000


def page(request: web.Request, items: Sequence[Item]) -> tuple[Sequence[Item], list[str]]:
    """The items of the page that is asked for, and the elements `Marker` and `MaxItems`.

    Raises:
        ServiceError: The marker or the size is not one.
    """
    size = max(1, min(_PAGE, _number(request, "maxitems", _PAGE)))
    start = _number(request, "marker", 0)
    stop = start + size
    marker = str(stop) if stop < len(items) else ""
    return items[start:stop], [element("Marker", text=marker), element("MaxItems", text=size)]


def listing(
    request: web.Request, name: str, items: Sequence[Item], render: Callable[[Item], str]
) -> str:
    """A whole page as an element."""
    shown, heading = page(request, items)
    return element(name, *heading, *(render(item) for item in shown))


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name) or str(default)
    if not text.isdecimal():
        raise errors.invalid_argument(f"'{name}' must be a number, not '{text}'.")
    return int(text)
