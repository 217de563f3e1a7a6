"""Commands of many callers in one process, which share commits: what waits together is committed
together, and nobody is answered before it is on disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from threading import Condition, Thread
from typing import Any, Generic, Protocol, TypeVar

from application.crash_points import reach
from application.failures import StoreError, StoreInert, StoreMissing

R = TypeVar("R")
Acting = TypeVar("Acting")

AT_MOST = 64
"""Commands that share one commit: other processes wait no longer for their turn than these take."""


class Store(Protocol):
    """An event store, as the queue needs it."""

    def act_for(self, principal: str) -> None: ...

    def together(self, works: Sequence[Callable[[], R]]) -> list[R | Exception]: ...

    def close(self) -> None: ...


class Answer(Protocol):
    """Who waits for a command; a `Future` is one."""

    def set_running_or_notify_cancel(self) -> bool:
        """Whether it is still wanted: from here on it is carried out."""

    def set_result(self, result: Any) -> None: ...

    def set_exception(self, exception: BaseException) -> None: ...


def answer_each(outcomes: Iterable[tuple[Answer, Any]]) -> None:
    """Give each its command's result, or what it raised."""
    for answer, outcome in outcomes:
        if isinstance(outcome, Exception):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)


class CommandQueue(Generic[Acting]):
    """Carries out commands one after the other, in a thread of its own that has the store.

    No command is kept waiting for others to come: while a commit is under way they gather.
    `open_store` gives the store and what commands are called with. It is called in that thread,
    and again when it failed or when another store is in the place. `at_most` commands share a
    commit. `tell` is called in that thread with the outcomes of each commit (`answer_each`).
    """

    def __init__(
        self,
        open_store: Callable[[], tuple[Store, Acting]],
        at_most: int = AT_MOST,
        tell: Callable[[Iterable[tuple[Any, Any]]], None] = answer_each,
    ) -> None:
        self._open_store = open_store
        self._at_most = at_most
        self._tell = tell
        self._open: tuple[Store, Acting] | None = None
        self._waiting: deque[tuple[Callable[[Acting], Any], str, Answer]] = deque()
        self._changed = Condition()
        self._closed = False
        self._thread: Thread | None = None

    def submit(self, command: Callable[[Acting], R], principal: str = "") -> Future[R]:
        """Have a command carried out when it is its turn, on behalf of a client of the server. The
        future has what it returned, or what it raised, once that is on disk; StoreError when
        nothing could be recorded. A future that is cancelled in time is not carried out.

        The log waits for the command: it asks nobody but the store. Raises StoreError after
        `close`.
        """
        future: Future[R] = Future()
        self.submit_all([(command, principal, future)])
        return future

    def submit_all(self, some: Iterable[tuple[Callable[[Acting], Any], str, Answer]]) -> None:
        """The same of several commands with their principals and who waits for each."""
        with self._changed:
            if self._closed:
                raise StoreError("the server is ending, nothing was recorded: try again")
            self._waiting.extend(some)
            if self._thread is None:
                # Who ends without `close` answers nobody any more: as if it were killed.
                self._thread = Thread(target=self._carry_out_all, name="commands", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Take no more, carry out what waits, and close the store."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _carry_out_all(self) -> None:
        while some := self._next():
            self._carry_out(some)
        self._close_store()

    def _close_store(self) -> None:
        if self._open is not None:
            (store, _), self._open = self._open, None
            store.close()

    def _next(self) -> list[tuple[Callable[[Acting], Any], str, Answer]]:
        """Those that wait, so many at most, as soon as there are any; none when it is closed."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                some = [
                    self._waiting.popleft() for _ in range(min(len(self._waiting), self._at_most))
                ]
                some = [one for one in some if one[2].set_running_or_notify_cancel()]
                if some or (self._closed and not self._waiting):
                    return some

    def _carry_out(self, some: list[tuple[Callable[[Acting], Any], str, Answer]]) -> None:
        outcomes: Sequence[Any]
        try:
            if self._open is None:
                self._open = self._open_store()
            store, acting = self._open

            def work(command: Callable[[Acting], Any], principal: str) -> Callable[[], Any]:
                def carry_out() -> Any:
                    store.act_for(principal)
                    return command(acting)

                return carry_out

            outcomes = store.together([work(command, principal) for command, principal, _ in some])
        except Exception as error:
            # Whatever it is, each of them is told, and the next ones are tried.
            outcomes = [error] * len(some)
        reach("answer.commands")
        self._tell(list(zip([answer for _, _, answer in some], outcomes, strict=True)))
        if any(isinstance(outcome, (StoreInert, StoreMissing)) for outcome in outcomes):
            self._close_store()
