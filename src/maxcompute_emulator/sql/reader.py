"""Reads statements that are not queries, token by token, with places for error messages."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from maxcompute_emulator import errors
from maxcompute_emulator.types import DataType, parse_type

Item = TypeVar("Item")

_TOKEN = re.compile(
    r"""(?P<string>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*")|(?P<quoted>`(?:[^`]|``)*`)"""
    r"""|(?P<number>\d+(?:\.\d+)?)|(?P<word>[^\W\d]\w*)|(?P<sign><>|!=|<=|>=|==|[^\s\w])|(?P<space>\s+)""",
    re.DOTALL,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "Z": "\x1a"}


@dataclass(frozen=True)
class Token:
    """One word, name, constant or sign.

    Attributes:
        kind: `word`, `quoted`, `string`, `number`, `sign`, or `end`.
        value: What it says, without quotes.
        start: Where it starts in the text.
        end: Where it ends.
    """

    kind: str
    value: str
    start: int
    end: int


class Reader:
    """The tokens of one statement, read from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.position = 0

    @property
    def current(self) -> Token:
        """The token to be read next."""
        return self.tokens[self.position]

    @property
    def at_end(self) -> bool:
        """Whether everything has been read."""
        return self.current.kind == "end"

    def peek(self, *words: str) -> bool:
        """Whether these words or signs come next."""
        ahead = self.tokens[self.position : self.position + len(words)]
        return len(ahead) == len(words) and all(
            token.kind in ("word", "sign") and token.value.upper() == word
            for token, word in zip(ahead, words, strict=True)
        )

    def accept(self, *words: str) -> bool:
        """Read these words, if they come next."""
        found = self.peek(*words)
        if found:
            self.position += len(words)
        return found

    def expect(self, *words: str) -> None:
        """Read these words.

        Raises:
            ServiceError: Something else comes next.
        """
        if not self.accept(*words):
            raise self.error(f"expect '{' '.join(words)}'")

    def take(self) -> Token:
        """Read any token."""
        token = self.current
        if token.kind == "end":
            raise self.error("unexpected end of statement")
        self.position += 1
        return token

    def name(self) -> str:
        """Read an identifier, in lower case."""
        if self.current.kind not in ("word", "quoted"):
            raise self.error("expect a name")
        return self.take().value.lower()

    def dotted(self) -> list[str]:
        """Read `a`, `a.b` or `a.b.c`."""
        parts = [self.name()]
        while self.accept("."):
            parts.append(self.name())
        return parts

    def names(self) -> list[str]:
        """Read `(a, b, ...)`."""
        return self.listed(self.name)

    def listed(self, read: Callable[[], Item]) -> list[Item]:
        """Read what stands between parentheses, with commas between its items."""
        self.expect("(")
        found = [read()]
        while self.accept(","):
            found.append(read())
        self.expect(")")
        return found

    def string(self) -> str:
        """Read a constant text."""
        if self.current.kind != "string":
            raise self.error("expect a string")
        return self.take().value

    def integer(self) -> int:
        """Read a whole number, with or without a sign."""
        negative = self.accept("-")
        if self.current.kind != "number" or not self.current.value.isdecimal():
            raise self.error("expect a whole number")
        value = int(self.take().value)
        return -value if negative else value

    def constant(self) -> str:
        """Read a text, number or plain word, as text."""
        negative = "-" if self.accept("-") else ""
        if self.current.kind in ("string", "number", "word"):
            return negative + self.take().value
        raise self.error("expect a constant")

    def type(self) -> DataType:
        """Read a data type."""
        start = self.current.start
        self.take()
        end = self.tokens[self.position - 1].end
        if self.peek("<") or self.peek("("):
            closing = ">" if self.peek("<") else ")"
            opening = self.current.value
            depth = 0
            while True:
                token = self.take()
                depth += (token.value == opening) - (token.value == closing)
                end = token.end
                if depth == 0:
                    break
        return parse_type(self.text[start:end])

    def rest(self) -> str:
        """Read all that is left, as it was written."""
        text = self.text[self.current.start :]
        self.position = len(self.tokens) - 1
        return text

    def finish(self) -> None:
        """Nothing may be left."""
        if not self.at_end:
            raise self.error("unexpected text")

    def error(self, message: str) -> errors.ServiceError:
        """A parse error at the token that comes next."""
        before = self.text[: self.current.start]
        line = before.count("\n") + 1
        column = len(before) - (before.rfind("\n") + 1) + 1
        near = self.current.value or "end of statement"
        return errors.parse_error(f"invalid token '{near}', {message}", line, column)


def _tokens(text: str) -> list[Token]:
    found = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or not match.lastgroup:
            raise errors.parse_error(f"invalid character '{text[position]}'", 1, position + 1)
        position = match.end()
        if match.lastgroup != "space":
            value = _value(match.lastgroup, match.group())
            found.append(Token(match.lastgroup, value, match.start(), position))
    found.append(Token("end", "", len(text), len(text)))
    return found


def _value(kind: str, text: str) -> str:
    if kind == "quoted":
        return text[1:-1].replace("``", "`")
    if kind != "string":
        return text
    quote = text[0]
    inner = text[1:-1].replace(quote * 2, quote)
    return re.sub(
        r"\\(.)", lambda found: _ESCAPES.get(found.group(1), found.group(1)), inner, flags=re.DOTALL
    )
