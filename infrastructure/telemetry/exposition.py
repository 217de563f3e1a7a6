"""Metrics as text: the worker's file, and one valid page of it and of the server's own metrics.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from infrastructure.telemetry.metrics import PREFIX, MetricsCollector

CREATED = "_created"
"""Ends the series in which the library says when each other one began: nobody asks for them."""

MISSED = 3
"""Intervals after which figures that were not written again are those of a dead process."""


class _Families:
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        return self._families


def text_of(families: Iterable[Family]) -> str:
    return generate_latest(_Families(families)).decode()


def families_of(metrics: MetricsCollector, process: str) -> Iterator[Family]:
    """Every family of a process, each series with the label `process`."""
    for family in metrics.registry.collect():
        labelled = Family(family.name, family.documentation, family.type)
        for sample in family.samples:
            if not sample.name.endswith(CREATED):
                labelled.samples.append(
                    sample._replace(labels={"process": process, **sample.labels})
                )
        if labelled.samples:
            yield labelled


def write(path: str, metrics: MetricsCollector, process: str) -> None:
    """Put the text in its place whole, readable for whoever may enter the directory. Raises
    OSError."""
    unfinished = f"{path}.{os.getpid()}"
    try:
        with open(unfinished, "w", encoding="utf-8") as file:
            file.write(text_of(families_of(metrics, process)))
        os.replace(unfinished, path)
    except OSError:
        try:
            os.unlink(unfinished)
        except OSError:
            pass
        raise


def read(path: str) -> list[Family]:
    """The families of a file; [] where there is none or it cannot be understood."""
    try:
        with open(path, encoding="utf-8") as file:
            return list(text_string_to_metric_families(file.read()))
    except (OSError, ValueError):
        return []


def collected_at(families: Iterable[Family]) -> float | None:
    """When these were collected, in seconds since the epoch."""
    for family in families:
        if family.name == PREFIX + "collected_at_seconds":
            return max((sample.value for sample in family.samples), default=None)
    return None


def merged(
    metrics: MetricsCollector, path: str, *, lives: bool, now: float, interval: float
) -> str:
    """The server's page: its own metrics and those in the worker's file, each family once.

    `lives` says whether a worker process is there, `now` is the wall time, `interval` that in
    which it writes. What a dead or stuck worker has left is not served as if it lived.
    """
    theirs = read(path)
    at = collected_at(theirs)
    age = None if at is None else max(0.0, now - at)
    up = lives and age is not None and age <= MISSED * interval
    families: dict[str, Any] = {family.name: family for family in families_of(metrics, "server")}
    of_worker = MetricsCollector()
    of_worker.gauge("process_up", int(up))
    if age is not None:
        of_worker.gauge("figures_age_seconds", age)
    mine = [f for f in families_of(of_worker, "worker") if f.name in _OF_WORKER]
    for family in [*mine, *(theirs if up else ())]:
        known = families.setdefault(family.name, family)
        # A worker of another release may have made something else of a name.
        if known is not family and known.type == family.type:
            known.samples.extend(family.samples)
    return text_of(families.values())


_OF_WORKER = (PREFIX + "process_up", PREFIX + "figures_age_seconds")
