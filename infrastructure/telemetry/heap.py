"""What grew on this process's heap between two looks, where it was allocated and who holds it.

Nothing of the program is called and no value is told: only names of types, attributes and places.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from array import array
from collections import Counter, deque
from collections.abc import Sequence
from types import CellType, FrameType, FunctionType
from typing import Any

MOST = 5
"""Types, and containers, that are told: to find who holds one, all objects are gone through a few
times, which takes a tenth of a second or two."""

SITES = 10

LEAST = 10
"""New objects of a type, or items of a container, from which on it is told."""

SAMPLE = 10
"""New objects of a type whose holders are looked for: each makes that dearer."""

HOLDERS = 2
"""Holders that are told of a type."""

DEEP = 5
"""Steps from a thing to what has a name, at most."""

CONTAINERS = (list, dict, set, deque)
NAMELESS = (*CONTAINERS, tuple, CellType)
"""What is known by its holder."""


class Heap:
    """The first look, and from then on where memory is allocated, which slows the process down."""

    def __init__(self) -> None:
        self._traces = not tracemalloc.is_tracing()
        self._before = None if self._traces else tracemalloc.take_snapshot()
        gc.collect()
        objects = gc.get_objects()
        self._known = array("Q", map(id, objects))
        self._types = Counter(map(type, objects))
        self._lengths = {
            id(thing): length for thing in objects if (length := _length(thing)) >= LEAST
        }
        if self._traces:
            tracemalloc.start()

    def stop(self) -> None:
        """There is no second look."""
        if self._traces:
            tracemalloc.stop()

    def growth(self) -> dict[str, Any]:
        """What has grown most since: `types` (of objects that refer to others; `held_by` tells what
        refers to new ones), `containers` (`grew` by so many items; `held_by` is where it is) and
        `sites` of what was allocated and lives (`bytes`)."""
        gc.collect()
        objects = gc.get_objects()
        sites = self._sites()
        self.stop()
        known = set(self._known)
        new = [thing for thing in objects if id(thing) not in known]
        holders = _Holders(self, *vars(self).values(), vars(self), objects, known, new)
        return {
            "types": self._grown_types(objects, new, holders),
            "containers": self._grown_containers(objects, known, holders),
            "sites": sites,
        }

    def _grown_types(
        self, objects: list[Any], new: list[Any], holders: _Holders
    ) -> list[dict[str, Any]]:
        counts = Counter(map(type, objects))
        counts.subtract(self._types)
        rows = []
        for kind, grew in counts.most_common(MOST):
            if grew < LEAST:
                break
            of_kind = [thing for thing in new if type(thing) is kind]
            sample = of_kind[:: max(1, len(of_kind) // SAMPLE)][:SAMPLE]
            holders.pass_over(of_kind, sample)
            rows.append(
                {
                    "type": _name(kind),
                    "objects": self._types[kind] + grew,
                    "grew": grew,
                    "held_by": holders.of_most(sample),
                }
            )
        return rows

    def _grown_containers(
        self, objects: list[Any], known: set[int], holders: _Holders
    ) -> list[dict[str, Any]]:
        grown = []
        for thing in objects:
            length = _length(thing)
            before = self._lengths.get(id(thing), LEAST) if id(thing) in known else 0
            if length - before >= LEAST and not holders.passes_over(thing):
                grown.append((length - before, length, thing))
        grown.sort(key=lambda row: -row[0])
        holders.pass_over(grown, *grown)
        return [
            {
                "type": _name(type(thing)),
                "items": length,
                "grew": grew,
                "held_by": holders.place(thing),
            }
            for grew, length, thing in grown[:MOST]
        ]

    def _sites(self) -> list[dict[str, Any]]:
        ours = [tracemalloc.Filter(False, file) for file in (__file__, tracemalloc.__file__)]
        snapshot = tracemalloc.take_snapshot().filter_traces(ours)
        before = self._before or tracemalloc.Snapshot([], 1)
        found = snapshot.compare_to(before, "lineno")
        return [
            {
                "site": f"{one.traceback[0].filename}:{one.traceback[0].lineno}",
                "bytes": one.size_diff,
                "objects": one.count_diff,
            }
            for one in sorted(found, key=lambda one: -one.size_diff)[:SITES]
            if one.size_diff > 0
        ]


class _Holders:
    """Finds who refers to an object, but for the look itself, which holds everything."""

    def __init__(self, *own: Any) -> None:
        self._own: list[Any] = []
        self._passed = {id(self._own)}
        self.pass_over(own, *own)

    def pass_over(self, *things: Any) -> None:
        """These are the look's own. They are kept, so that their ids are nobody else's."""
        self._own += things
        self._passed |= {id(thing) for thing in (things, *things)}

    def passes_over(self, thing: Any) -> bool:
        return id(thing) in self._passed

    def of_most(self, sample: Sequence[Any]) -> list[str]:
        """Where those are that refer to most of these, or to any."""
        wanted = {id(thing) for thing in sample}
        ranked = [
            (len(wanted & {id(thing) for thing in gc.get_referents(holder)}), holder)
            for holder in self._referrers(sample)
        ]
        ranked.sort(key=lambda pair: -pair[0])
        self.pass_over(ranked, *ranked)
        places = []
        for _, holder in ranked[:HOLDERS]:
            held = next(thing for thing in gc.get_referents(holder) if id(thing) in wanted)
            place = self._owned(holder, held)
            if place is None:
                length = _length(holder)
                of = f" of {length}" if length >= 0 else ""
                place = f"{_name(type(holder))}{of}: {self.place(holder)}"
            places.append(place)
        return list(dict.fromkeys(places)) or [self._unknown(sample[0])]

    def place(self, thing: Any, deep: int = DEEP) -> str:
        """`module.name`, `module.Class.attribute`, or with [...] what is held by one of these."""
        referrers = self._referrers([thing])
        for holder in referrers:
            place = self._owned(holder, thing)
            if place is not None:
                return place
        if not referrers or not deep:
            return self._unknown(thing)
        return f"{self.place(referrers[0], deep - 1)}[...]"

    def _owned(self, holder: Any, thing: Any) -> str | None:
        """The thing as what has a name itself knows it; None for a holder that has none."""
        if isinstance(holder, FunctionType):
            return f"{holder.__module__}.{holder.__qualname__}"
        if not issubclass(type(holder), NAMELESS):
            names = [name for name, value in _attributes(holder) if value is thing]
            return ".".join([_name(type(holder)), *names[:1]])
        if not issubclass(type(holder), dict):
            return None
        names = [str(name) for name, value in dict.items(holder) if value is thing]
        if names and "__loader__" in holder:
            return f"{holder.get('__name__')}.{names[0]}"
        for owner in self._referrers([holder]):
            if isinstance(owner, type) and "__module__" in holder:
                return ".".join([_name(owner), *names[:1]])
            if _namespace(owner) is holder:
                return ".".join([_name(type(owner)), *names[:1]])
        return None

    def _unknown(self, thing: Any) -> str:
        for frame in sys._current_frames().values():
            at: FrameType | None = frame
            while at is not None:
                if at.f_code.co_filename != __file__:
                    names = at.f_locals
                    if names is not at.f_globals:
                        self.pass_over(names)
                    for name, value in names.items():
                        if value is thing:
                            module = at.f_globals.get("__name__")
                            return f"{module}.{at.f_code.co_name}: {name}"
                at = at.f_back
        return "a function that runs, or code that is not Python's"

    def _referrers(self, things: Sequence[Any]) -> list[Any]:
        found = gc.get_referrers(*things)
        self.pass_over(things, found)
        kept = [
            holder
            for holder in found
            if id(holder) not in self._passed and not isinstance(holder, FrameType)
        ]
        self.pass_over(kept)
        return kept


def _namespace(thing: Any) -> Any:
    try:
        return object.__getattribute__(thing, "__dict__")
    except AttributeError:
        return None


def _attributes(thing: Any) -> list[tuple[str, Any]]:
    """Names and values of an object's own, also of those that are in slots."""
    found = list((_namespace(thing) or {}).items())
    for kind in type(thing).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            try:
                found.append((name, object.__getattribute__(thing, name)))
            except AttributeError:
                continue
    return found


def _length(thing: Any) -> int:
    """Items in a container, without asking its own class; -1 for anything else."""
    for base in CONTAINERS:
        if issubclass(type(thing), base):
            return base.__len__(thing)
    return -1


def _name(kind: type) -> str:
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
