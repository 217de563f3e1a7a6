"""JSON in and out over CPython's own accelerator, at a fraction of what importing `json` costs.

A HostFactory call is a new process; `json` brings `re` and `enum` with it: 0.7 of a bare start, the
accelerator alone 0.03. Where the accelerator is not there the standard module does the same.
"""

from __future__ import annotations

__all__ = ["BadJson", "dumps", "loads", "quoted"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class BadJson(ValueError):
    """The text is not JSON. `str()` says where: line and column."""


def _refuse_constant(name: str) -> Any:
    raise BadJson(f"{name} is not JSON")


def _refuse_object(value: object) -> Any:
    raise TypeError(f"{type(value).__name__} is not plain JSON")


def _explain(text: str) -> BadJson:
    import json

    try:
        json.loads(text, parse_constant=_refuse_constant)
    except BadJson as error:
        return error
    except json.JSONDecodeError as error:
        return BadJson(f"{error.msg} at line {error.lineno} column {error.colno}")
    except RecursionError:
        return BadJson("nested too deeply")
    except ValueError as error:
        return BadJson(str(error))
    return BadJson("not JSON")


try:
    from _json import encode_basestring as quoted
    from _json import make_encoder, make_scanner
except ImportError:
    import json
    from json.encoder import py_encode_basestring as quoted

    def dumps(value: Any, default: Callable[[object], Any] = _refuse_object) -> str:
        return json.dumps(
            value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=default
        )

    def loads(text: str) -> Any:
        try:
            return json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            raise _explain(text) from None

else:

    class _Context:
        strict = True
        object_hook = None
        object_pairs_hook = None
        parse_float = float
        parse_int = int
        parse_constant = staticmethod(_refuse_constant)
        memo: dict[str, str] = {}

    _scan = make_scanner(_Context)  # type: ignore[arg-type]
    _encode = make_encoder(None, _refuse_object, quoted, None, ":", ",", False, False, False)

    def dumps(value: Any, default: Callable[[object], Any] = _refuse_object) -> str:
        """The compact JSON text of plain values, in UTF-8; `default` gives a plain value for any
        other. Raises TypeError, ValueError."""
        encode = _encode
        if default is not _refuse_object:
            encode = make_encoder(None, default, quoted, None, ":", ",", False, False, False)
        return "".join(encode(value, 0))

    def loads(text: str) -> Any:
        """The value of a JSON text. Raises BadJson."""
        start = 0
        end = len(text)
        while start < end and text[start] in " \t\n\r":
            start += 1
        try:
            value, start = _scan(text, start)
        except (ValueError, RecursionError, StopIteration, SystemError):
            # SystemError: where `json` was never imported, the scanner has no error to raise.
            raise _explain(text) from None
        if start < end and text[start:].strip(" \t\n\r"):
            raise _explain(text)
        return value
