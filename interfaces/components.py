"""The parts of a container, loaded when they are first used or all at the start, as the site says.

Of dependency-injector the providers alone are used: its containers import FastAPI wherever that is
installed (`docs/decisions/0027-components.md`).
"""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Any, Self

from dependency_injector import providers

from application.threads import in_threads
from interfaces.loading import loads

ALIASES = {"LoggingPort": "journal", "ConfigurationPort": "settings"}
"""Names that `performance.lazy_loading.preload_critical` takes besides our own."""

_NOT_MADE = object()


class Component(providers.Provider[Any]):
    """A part that is made by a function of other parts when it is first asked for, once; `anew`
    means that it keeps nothing, so that it may be made at each use, `late` that it cannot be made
    at the start."""

    def __init__(
        self,
        make: Callable[..., Any] | None = None,
        *needs: Any,
        anew: bool = False,
        late: bool = False,
    ) -> None:
        self._made_by = providers.Factory(make, *needs)
        self._anew = anew
        self.late = late
        self._made = _NOT_MADE
        self._lock = RLock()
        self.name = ""
        self.is_cached: Callable[[], bool] = lambda: True
        super().__init__()

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __deepcopy__(self, memo: dict[int, Any] | None) -> Self:
        memo = {} if memo is None else memo
        copied: Self | None = memo.get(id(self))
        if copied is None:
            needs = providers.deepcopy(self._made_by.args, memo)
            copied = type(self)(self._made_by.provides, *needs, anew=self._anew, late=self.late)
            copied.name = self.name
            memo[id(self)] = copied
            self._copy_overridings(copied, memo)
        return copied

    def _provide(self, given: Any, named: Any) -> Any:
        if self._made is not _NOT_MADE:
            return self._made
        with self._lock:
            if self._made is not _NOT_MADE:
                return self._made
            with loads.loading(self.name):
                made = self._made_by()
            if not self._anew or self.is_cached():
                self._made = made
            return made

    @property
    def is_made(self) -> bool:
        return self._made is not _NOT_MADE

    def reset(self) -> None:
        """Have it made anew at the next use."""
        self._made = _NOT_MADE

    def needs(self, other: Component) -> bool:
        """Whether the other part is made for this one."""
        found = (n for n in self._made_by.args if isinstance(n, Component))
        return any(n is other or n.needs(other) for n in found)


class Container:
    """Parts that a class declares as providers, for one instance of it; those given by name take
    the place of the declared ones."""

    def __init__(self, **given: Any) -> None:
        declared = {
            name: provider
            for name, provider in vars(type(self)).items()
            if isinstance(provider, providers.Provider)
        }
        for name, provider in providers.deepcopy(declared).items():
            setattr(self, name, provider)
            if isinstance(provider, Component):
                provider.is_cached = self.is_cached
        for name, thing in given.items():
            getattr(self, name).override(thing)

    def components(self) -> dict[str, Component]:
        return {n: p for n, p in vars(self).items() if isinstance(p, Component)}

    def is_cached(self) -> bool:
        """Whether what keeps nothing is kept itself."""
        return True

    def load(self, bound: Component, threads: int, part: str | None = None) -> None:
        """Load everything, or a part and what is made for it, so many at a time. What `bound` is
        made for is loaded by the calling thread: a connection to SQLite is its thread's. Raises
        what making one raises."""
        wanted = [one for one in self.components().values() if not one.late]
        if part is not None:
            whole = getattr(self, part)
            wanted = [one for one in wanted if one is whole or whole.needs(one)]
        here = [one for one in wanted if one is bound or one.needs(bound)]
        in_threads(threads, lambda one: one(), [one for one in wanted if one not in here])
        for one in here:
            one()
