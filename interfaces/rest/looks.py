"""Questions to the read models and the log, from the event loop.

A few rows of a local file are read at once, in the loop: handing that to a thread costs several
times what the read does. Whatever may take longer, or crosses a network, is asked by a thread,
each with a connection of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import local
from typing import Any, TypeVar

from application.failures import StoreError
from interfaces.read_side import Call, Site

T = TypeVar("T")

KEPT = 2.0
"""Seconds after which a connection is opened anew: the store may have been replaced or moved."""

RECENT = 1.0
"""Seconds in which the site's files are not looked at again by those who ask for a recent call."""

POLL = 0.02
"""Seconds between two looks at the end of the log while somebody waits for it."""


class Looks:
    """One process's looks at the store of a site; `threads` may look at the same time."""

    def __init__(self, site: Site, environ: Mapping[str, str], python: str, threads: int) -> None:
        self.site = site
        self.environ = environ
        self.python = python
        self._mine = local()
        self._threads = ThreadPoolExecutor(threads, "look")
        self._slow: Any = None
        call = self.call()
        self._slow = call.storage.watch = call.slow_statements()
        self._recent = (call, time.monotonic() + RECENT)
        self.settings: dict[str, Any] = call.settings
        self.provider = site.provider
        self._quick = call.storage.quick_reads

    def call(self) -> Call:
        """The site as its files are now. Raises BrokenConfiguration."""
        call = Call("server", self.environ, self.python, self.site)
        call.storage.watch = self._slow
        return call

    def recent_call(self) -> Call:
        """The same as the files were a second ago at most: what many ask for at a time."""
        call, until = self._recent
        if time.monotonic() >= until:
            call = self.call()
            self._recent = (call, time.monotonic() + RECENT)
        return call

    async def ask(self, question: Callable[[Any], T], *, is_quick: bool = True) -> T:
        """What the question finds in one consistent look at whole read models. Raises StoreError
        and what it raises."""
        if is_quick and self._quick:
            return self._look(question)
        return await self.run(self._look, question)

    async def ask_past(self, moment: str, find: Any, question: Callable[[Any, int], T]) -> T:
        """The same of the state as it was known at a moment; `find` says what of it is of concern
        (`application.as_of`), None: all. The question is told the position too."""

        def look() -> T:
            with closing(self.call().past(moment, find, lambda position, end: None)) as view:
                return question(view, view.position)

        return await self.run(look)

    async def ask_log(self, question: Callable[[Any], T]) -> T:
        """The same of the log alone, whatever became of the read models, for as long as it
        takes."""

        def look() -> T:
            with closing(self.call().log()) as view:
                return question(view)

        return await self.run(look)

    async def run(self, work: Callable[..., T], *given: Any) -> T:
        """What may take long, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)

    async def end(self) -> int:
        """The position that the read models have followed the log to. Raises StoreError."""
        return await self.ask(_end)

    async def reach(self, position: int, seconds: float) -> bool:
        """Wait until the read models have followed the log to a position; whether they have."""
        end = time.monotonic() + seconds
        while (await self.end()) < position:
            if time.monotonic() >= end:
                return False
            await asyncio.sleep(POLL)
        return True

    def open(self) -> None:
        """Have a connection before the first question. Raises StoreError."""
        if self._quick:
            self._look(_end)
        else:
            self._threads.submit(self._look, _end).result()

    def _look(self, question: Callable[[Any], T]) -> T:
        view = self._view()
        try:
            answer = question(view)
            view.pause()
        except BaseException:
            self._forget()
            raise
        return answer

    def _view(self) -> Any:
        view, until = getattr(self._mine, "kept", (None, 0.0))
        if view is not None and time.monotonic() < until:
            try:
                view.again()
                return view
            except StoreError:
                pass
        self._forget()
        view = self.call().queries()
        self._mine.kept = (view, time.monotonic() + KEPT)
        return view

    def _forget(self) -> None:
        view, _ = getattr(self._mine, "kept", (None, 0.0))
        self._mine.kept = (None, 0.0)
        if view is not None:
            view.close()

    def close(self) -> None:
        self._forget()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _end(view: Any) -> int:
    return view.end()[0]  # type: ignore[no-any-return]
