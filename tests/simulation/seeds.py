"""Running seeds in a process of their own, each in so long at most."""

from __future__ import annotations

import atexit
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.run import Result

LONGEST, LONGEST_WORK = 1200.0, 150.0
"""Seconds that one seed may take, and those of processor: one that hangs has failed too."""

STEPS = 40
"""Of each seed, unless it is said otherwise."""

_places: dict[str, Any] = {}
_stack = ExitStack()
atexit.register(_stack.close)


def _place(kind: str) -> Any:
    """Where a store of this kind can be; what serves it is started once a process."""
    from infrastructure.event_store import dynamodb_http
    from infrastructure.sandbox.dynamodb import DynamoDb
    from tests.stores import serving

    if kind == "dynamodb":
        dynamodb_http.in_process = DynamoDb().exchange  # without a network
    if kind not in _places:
        _places[kind] = serving(kind, _stack)
    return _places[kind]()


def run(asked: tuple[int, int]) -> Result:
    """One seed, of so many steps."""
    import tests.conftest  # noqa: F401  (AWS's models are read once a process)
    from tests.simulation.run import Result, simulate

    seed, steps = asked

    def hang(*_: Any) -> None:
        raise TimeoutError(f"not done in {LONGEST:g} s, or {LONGEST_WORK:g} s of work")

    signal.signal(signal.SIGALRM, hang)
    signal.signal(signal.SIGPROF, hang)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    signal.setitimer(signal.ITIMER_PROF, LONGEST_WORK)
    try:
        return simulate(seed, _place, steps)
    except TimeoutError as error:
        return Result(seed, str(error))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
