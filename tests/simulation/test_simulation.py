"""A few seeds of the simulation, that they can be run again, and what they replace."""

from __future__ import annotations

import importlib
import os
import pkgutil
from pathlib import Path
from typing import Any

import pytest

import application
import domain
import infrastructure
import interfaces
from interfaces.read_side import Call
from interfaces.worker.loop import Worker
from tests.simulation import run
from tests.simulation.promises import Broken
from tests.simulation.run import Result, Simulation, simulate
from tests.simulation.site import REPLACED, SimulatedSite
from tests.stores import Place
from tests.world import VERBS

EMBEDDED = ("sqlite", "json")
SHORT = 12
"""Steps: enough to meet some faults, and all ends as it must."""


def embedded(kind: str) -> Place:
    return Place(kind, {"strategy": kind})


def short(seed: int, steps: int = SHORT) -> Result:
    return simulate(seed, embedded, steps, EMBEDDED)


@pytest.mark.parametrize("seed", range(1, 6))
def test_every_promise_holds(seed: int) -> None:
    """`make simulate SEEDS=1000` runs many more, on every store and for longer."""
    result = short(seed)

    assert not result.failure, "\n".join([*result.steps, result.failure])


def test_a_seed_can_be_run_again() -> None:
    """The same steps, requests and machines at the same times."""
    first, again = short(3), short(3)

    assert first.steps == again.steps
    assert (first.days, first.counts) == (again.days, again.counts)
    assert first.steps[1:] != short(4).steps[1:]


def modules() -> dict[str, Any]:
    """Every module of the product that can be had here."""
    found = {}
    for package in (application, domain, infrastructure, interfaces):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "sandbox" in info.name or info.name.endswith(("hostfactory.main", "__main__")):
                continue
            found[info.name] = importlib.import_module(info.name)
    return found


def contents() -> dict[str, Any]:
    """What each module and each class of the product's has, by its dotted name."""
    found = {"os.urandom": os.urandom}
    for name, module in modules().items():
        for key, value in vars(module).items():
            if not callable(value):
                continue
            found[f"{name}.{key}"] = value
            if isinstance(value, type) and value.__module__ == name:
                found |= {f"{name}.{key}.{k}": v for k, v in vars(value).items() if callable(v)}
    return found


def overridden(worker: Worker) -> set[str]:
    return {name for name, provider in worker.side.providers.items() if provider.overridden}


def test_what_a_simulation_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clock, randomness, AWS and what dying is: nothing else of the product is another one."""
    before = contents()
    found: dict[str, set[str]] = {}

    def look(simulation: Simulation) -> None:
        site = simulation.site
        simulation.arm("nowhere", lambda name: None)
        after = contents()
        found["attributes"] = {name for name, value in before.items() if after[name] is not value}
        (worker,) = site.workers
        plain = Worker(site.site, site.environ)
        found["container"] = overridden(worker) - overridden(plain)
        plain.end()

        def compare(call: Call, document: dict[str, Any], path: str) -> str:
            real = Call(call.verb, call.environ, call.python, call.site)
            assert type(call) is Call and vars(call).keys() == vars(real).keys()
            found["call"] = {
                name
                for name in ("clock", "now", "overrides", "mode", "turn_wanted", "archives")
                if vars(call)[name] != vars(real)[name]
            }
            return "{}"

        monkeypatch.setitem(VERBS, "getRequestStatus", compare)
        site.call("getRequestStatus", {})
        raise Broken("as told", "")

    monkeypatch.setattr(Simulation, "come_to_rest", look)
    result = simulate(1, embedded, 0, ("sqlite",))

    assert result.failure == "as told: ", result.failure
    assert found == REPLACED


def test_a_broken_promise_is_told_with_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is named, with the step and the steps before it."""
    monkeypatch.setattr(SimulatedSite, "owned", lambda self: {"i-1"})
    monkeypatch.setattr(run, "LONGEST_REST", 60.0)
    result = short(2)

    assert "what lives is what the ledger owns" in result.failure
    assert result.step == SHORT + 1
    assert result.steps[-3].endswith("nothing goes wrong any more")
