"""Answers in XML, and the dates in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from aiohttp import web

_HEADER = '<?xml version="1.0" encoding="UTF-8"?>\n'


def element(name: str, *children: str, text: object = None, **attributes: str) -> str:
    """An element with text, or with elements that are XML already."""
    marks = "".join(f" {key}={quoteattr(value)}" for key, value in attributes.items())
    inner = "".join(children) if text is None else _text(str(text))
    return f"<{name}{marks}>{inner}</{name}>"


def cdata(text: str) -> str:
    """Text that is not to be read as XML."""
    return "<![CDATA[" + _printable(text).replace("]]>", "]]]]><![CDATA[>") + "]]>"


def json_element(name: str, body: Mapping[str, Any], **attributes: str) -> str:
    """An element that holds JSON."""
    return element(name, cdata(json.dumps(body, ensure_ascii=False)), **attributes)


def answer(body: str, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A response of one XML document."""
    return web.Response(
        body=(_HEADER + body).encode("utf-8", "replace"),
        status=status,
        headers=dict(headers or {}),
        content_type="application/xml",
        charset="utf-8",
    )


def http_date(seconds: float) -> str:
    """A time in a header or element, to the second."""
    return formatdate(int(seconds), usegmt=True)


def object_headers(owner: str, created: float, modified: float) -> dict[str, str]:
    """The headers that tell of an object's owner and times."""
    return {
        "x-odps-owner": owner,
        "x-odps-creation-time": http_date(created),
        "Last-Modified": http_date(modified),
    }


def _text(text: str) -> str:
    return escape(_printable(text))


def _printable(text: str) -> str:
    """Characters that XML cannot carry become question marks."""
    return "".join(item if item in "\t\n\r" or item >= " " else "?" for item in text)
