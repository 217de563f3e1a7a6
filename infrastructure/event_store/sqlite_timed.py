"""SQLite connections whose statements are timed, for worker, server and an operator's commands."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from infrastructure.event_store.sqlite_driver import sqlite
from infrastructure.telemetry.slow_statements import SlowStatements


class TimedConnection(sqlite.Connection):  # type: ignore[misc]
    """Tells `watch` of statements that take long."""

    def __init__(self, watch: SlowStatements, *arguments: Any, **options: Any) -> None:
        self.watch = watch
        super().__init__(*arguments, **options)

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(_TimedCursor)

    def execute(self, sql: str, *parameters: Any) -> Any:
        return self.cursor().execute(sql, *parameters)

    def executemany(self, sql: str, *parameters: Any) -> Any:
        return self.cursor().executemany(sql, *parameters)


class _TimedCursor(sqlite.Cursor):  # type: ignore[misc]
    """What counts is the time in the driver: until a statement's first row, and for each that is
    fetched; not what is done with a row meanwhile."""

    _sql = ""
    _took = 0.0

    def execute(self, sql: str, *parameters: Any) -> Any:
        return self._begin(super().execute, sql, *parameters)

    def executemany(self, sql: str, *parameters: Any) -> Any:
        return self._begin(super().executemany, sql, *parameters)

    def fetchone(self) -> Any:
        return self._timed(super().fetchone)

    def fetchmany(self, *size: Any) -> Any:
        return self._timed(super().fetchmany, *size)

    def fetchall(self) -> Any:
        return self._timed(super().fetchall)

    def __next__(self) -> Any:
        return self._timed(super().__next__)

    def __del__(self) -> None:
        """Most cursors are let go of without a word when their last row was taken."""
        self._end()

    def _begin(self, act: Any, sql: str, *parameters: Any) -> Any:
        self._end()
        self._sql = sql
        return self._timed(act, sql, *parameters)

    def _timed(self, act: Any, *given: Any) -> Any:
        began = perf_counter()
        try:
            return act(*given)
        finally:
            self._took += perf_counter() - began

    def _end(self) -> None:
        if self._sql and self._took >= self.connection.watch.long:
            self.connection.watch.note(self._sql, self._took)
        self._sql, self._took = "", 0.0
