"""MaxCompute's grammar: sqlglot's, with every function left as a name and its arguments.

sqlglot rewrites functions into what it believes them to mean; some of it is wrong here. So all
functions stay anonymous, and `functions` alone says what each one means.
"""

from __future__ import annotations

import logging
from typing import Any, ClassVar

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, TokenError
from sqlglot.parser import Parser as BaseParser
from sqlglot_maxcompute import MaxCompute, MaxComputeParser

from maxcompute_emulator import errors

logging.getLogger("sqlglot").setLevel(logging.ERROR)


class EmulatorDialect(MaxCompute):
    """MaxCompute without sqlglot's meaning of functions."""

    class EmulatorParser(MaxComputeParser):
        """Keeps only the functions whose arguments have a grammar of their own."""

        FUNCTIONS: ClassVar[dict[str, Any]] = {}
        FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {
            name: parser
            for name, parser in MaxComputeParser.FUNCTION_PARSERS.items()
            if name in {"CAST", "TRY_CAST", "EXTRACT", "TRIM"}
        }

        def _parse_types(
            self,
            check_func: bool = False,
            schema: bool = False,
            allow_identifiers: bool = True,
            with_collation: bool = False,
        ) -> exp.Expr | None:
            """A type as written: Hive's parser makes STRING of `CAST(x AS VARCHAR(5))`."""
            return BaseParser._parse_types(
                self, check_func, schema, allow_identifiers, with_collation
            )

    Parser = EmulatorParser


def parse_query(text: str) -> exp.Expr:
    """The tree of a SELECT.

    Raises:
        ServiceError: The text is not a query.
    """
    try:
        tree = sqlglot.parse_one(text, dialect=EmulatorDialect)
    except ParseError as error:
        first = error.errors[0] if error.errors else {}
        description = first.get("description") or str(error).splitlines()[0]
        near = first.get("highlight") or "end of text"
        line, column = first.get("line") or 1, first.get("col") or 1
        message = f"invalid token '{near}': {description}"
        raise errors.parse_error(message, line, column) from None
    except TokenError as error:
        raise errors.parse_error(str(error).splitlines()[0]) from None
    if not isinstance(tree, exp.Query | exp.Values):
        raise errors.parse_error(f"'{text.strip()[:40]}' is not a query")
    return tree
