"""A few seeds of the simulation, that they can be run again, and what they replace."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sqlite3
from contextlib import closing
from typing import Any

import pytest
from dependency_injector import providers

import application
import domain
import infrastructure
import interfaces
from interfaces.read_side import Call
from interfaces.worker.loop import Worker
from tests.simulation.promises import Broken
from tests.simulation.run import Result, Simulation, simulate
from tests.simulation.site import REPLACED
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
    parts = vars(worker.side).items()
    return {n for n, p in parts if isinstance(p, providers.Provider) and p.overridden}


def test_what_a_simulation_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
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

    class Looking(Simulation):
        come_to_rest = look

    result = simulate(1, embedded, 0, ("sqlite",), Looking)

    assert result.failure == "as told: ", result.failure
    assert found == REPLACED


class Tampering(Simulation):
    """Somebody changes a row of the read models when all has come to rest."""

    def return_everything(self) -> None:
        with closing(sqlite3.connect(self.site.path)) as connection:
            connection.execute("UPDATE templates SET updated_at = 'long ago'")
            connection.commit()
        self.promises.read_models()


def test_a_broken_promise_is_told_with_its_steps() -> None:
    """What fails is named, with the step and the steps before it."""
    result = simulate(2, embedded, SHORT, ("sqlite",), Tampering)

    assert result.failure.startswith("read models equal a replay: ")
    assert result.step == SHORT + 2
    assert any(line.endswith("nothing goes wrong any more") for line in result.steps)
