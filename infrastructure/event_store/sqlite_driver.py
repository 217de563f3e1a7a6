"""The standard library's SQLite driver without the modules around it: a third of a read's time.

`sqlite3` imports datetime and collections.abc. Its C core, `_sqlite3`, imports functools (and with
it collections, operator, types) for one thing, `lru_cache`, whose own core is in C too: so that
core stands in while `_sqlite3` is imported, where nobody has imported functools yet. On any other
Python than was tested the plain import does the same, slower.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _import_core() -> Any:
    if "functools" in sys.modules or sys.implementation.name != "cpython":
        import _sqlite3

        return _sqlite3
    from _functools import _lru_cache_wrapper

    stand_in = type(sys)("functools")
    stand_in.__dict__["lru_cache"] = lambda maxsize: (
        lambda function: _lru_cache_wrapper(function, maxsize, False, tuple)
    )
    sys.modules["functools"] = stand_in
    try:
        import _sqlite3
    finally:
        # Whoever imports functools from here on gets the real one.
        del sys.modules["functools"]
    return _sqlite3


try:
    sqlite = _import_core()
except (ImportError, AttributeError):
    import sqlite3

    sqlite = sqlite3
