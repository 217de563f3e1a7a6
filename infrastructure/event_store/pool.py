"""SQLAlchemy's pool over a store's driver, and the answers that a worker or server keeps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.exc import TimeoutError as NoneFree
from sqlalchemy.pool import QueuePool

from application.failures import StoreBusy


class Pool:
    """Connections of `connect` for many threads. `settings` is `storage.sql_strategy`."""

    def __init__(
        self, name: str, dialect: str, connect: Callable[[], Any], settings: dict[str, Any]
    ) -> None:
        self._name = name
        self._timeout = settings["pool_timeout"]
        options: dict[str, Any] = {"use_native_hstore": False} if dialect == "postgresql" else {}
        self.engine = create_engine(
            dialect + "://",
            creator=connect,
            poolclass=QueuePool,
            pool_size=settings["pool_size"],
            max_overflow=settings["max_overflow"],
            pool_timeout=self._timeout,
            pool_recycle=settings["pool_recycle"],
            pool_use_lifo=True,
            # Whoever begins a transaction ends it; a ROLLBACK here would be one more round trip.
            pool_reset_on_return=None,
            **options,
        )
        self._out: dict[int, Any] = {}

    def take(self) -> Any:
        """Raises StoreBusy when none is free in time, StoreError."""
        try:
            lent = self.engine.raw_connection()
        except NoneFree:
            raise StoreBusy(
                f"{self._name}: all connections were in use for {self._timeout:g} s: raise "
                "storage.sql_strategy.pool_size or max_overflow"
            ) from None
        connection = lent.driver_connection
        self._out[id(connection)] = lent
        return connection

    def give_back(self, connection: Any, broken: bool) -> None:
        lent = self._out.pop(id(connection))
        if broken:
            lent.invalidate()
            # The others were of the same server.
            self.engine.dispose()
        else:
            lent.close()

    def close(self) -> None:
        self.engine.dispose()


class Cache:
    """Answers by statement and parameters, as long as nothing has been written since."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._state: object = None
        self._answers: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._lock = Lock()
        self.hits = 0

    def get(self, state: object, key: tuple[Any, ...]) -> Any:
        """The answer of this key when the store was as it is now, or None. `state` is another one
        after every write."""
        with self._lock:
            if state != self._state:
                self._answers.clear()
                self._state = state
                return None
            answer = self._answers.get(key)
            if answer is not None:
                self.hits += 1
                self._answers.move_to_end(key)
            return answer

    def put(self, state: object, key: tuple[Any, ...], answer: Any) -> None:
        with self._lock:
            if state != self._state:
                return
            self._answers[key] = answer
            if len(self._answers) > self._size:
                self._answers.popitem(last=False)
