"""The dashboard and the rules in the docs ask for metrics that there are, in queries that parse."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from infrastructure.telemetry.exposition import families_of
from infrastructure.telemetry.metrics import COUNTER, METRICS, PREFIX, TIMER, MetricsCollector
from tests.house.test_docs import ROOT

DASHBOARD = ROOT / "docs/how-to/grafana-dashboard.json"
PAGE = ROOT / "docs/how-to/monitor-with-prometheus.md"

TOKEN = re.compile(
    r"""\s*(?:
      (?P<string> "(?:[^"\\]|\\.)*" )
    | (?P<range> \[ [0-9]+[smhdw] \] )
    | (?P<number> [0-9]+(?:\.[0-9]+)? )
    | (?P<name> [a-zA-Z_:][a-zA-Z0-9_:]* )
    | (?P<operator> =~ | !~ | != | == | >= | <= | [-+*/<>=] )
    | (?P<bracket> [(){},] )
    )""",
    re.VERBOSE,
)
FUNCTIONS = {"rate", "increase", "histogram_quantile", "absent", "time"}
AGGREGATIONS = {"sum", "max", "min", "avg", "count"}


class Query:
    """A small parser of PromQL: what the dashboard uses of it. `selected` are (metric, labels)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str]] = []
        self.selected: list[tuple[str, set[str]]] = []
        self.grouped: set[str] = set()
        at = 0
        while text[at:].strip():
            found = TOKEN.match(text, at)
            assert found, f"not PromQL at {at}: {text[at:]!r}"
            self.tokens.append((str(found.lastgroup), found[0].strip()))
            at = found.end()
        self.tokens.append(("end", ""))
        self._at = 0
        self._expression()
        assert self._peek() == "", f"{self._peek()!r} is too much: {text}"

    def _peek(self) -> str:
        return self.tokens[self._at][1]

    def _take(self, expected: str = "", kind: str = "") -> str:
        found_kind, found = self.tokens[self._at]
        assert not expected or found == expected, f"{expected!r} is needed, not {found!r}"
        assert not kind or found_kind == kind, f"a {kind} is needed, not {found!r}: {self.text}"
        self._at += 1
        return found

    def _expression(self) -> None:
        self._operand()
        while self._peek() in ("+", "-", "*", "/", ">", "<", ">=", "<=", "==", "!="):
            self._take()
            self._operand()

    def _operand(self) -> None:
        kind, found = self.tokens[self._at]
        if kind == "number":
            self._take()
        elif found == "(":
            self._take()
            self._expression()
            self._take(")")
        elif found in AGGREGATIONS:
            self._take()
            if self._peek() == "by":
                self._take()
                self.grouped |= set(self._list(")", "name"))
            self._take("(")
            self._expression()
            self._take(")")
        elif found in FUNCTIONS:
            self._take()
            self._take("(")
            while self._peek() != ")":
                self._expression()
                if self._peek() == ",":
                    self._take()
            self._take(")")
        else:
            self._selector()

    def _list(self, end: str, kind: str) -> Iterator[str]:
        self._take("(")
        while self._peek() != end:
            yield self._take(kind=kind)
            if self._peek() == ",":
                self._take()
        self._take(end)

    def _selector(self) -> None:
        metric = self._take(kind="name")
        labels: set[str] = set()
        if self._peek() == "{":
            self._take()
            while self._peek() != "}":
                labels.add(self._take(kind="name"))
                assert self._take(kind="operator") in ("=", "!=", "=~", "!~")
                self._take(kind="string")
                if self._peek() == ",":
                    self._take()
            self._take("}")
        if self.tokens[self._at][0] == "range":
            self._take()
        self.selected.append((metric, labels))


def served() -> dict[str, set[str]]:
    """Every series that `/metrics` may have, and its labels."""
    found: dict[str, set[str]] = {}
    for name, metric in METRICS.items():
        labels = {*metric.labels, "process"}
        if metric.kind == TIMER:
            found |= {f"{PREFIX}{name}_{end}": labels for end in ("sum", "count")}
            found[f"{PREFIX}{name}_bucket"] = labels | {"le"}
        else:
            found[PREFIX + name + ("_total" if metric.kind == COUNTER else "")] = labels
    for family in families_of(MetricsCollector(), "worker"):
        for sample in family.samples:
            found[sample.name] = set(sample.labels)
    return found


SERVED = served()
GIVEN_BY_PROMETHEUS = {"instance", "job"}


def check(text: str) -> None:
    query = Query(text)
    known: set[str] = set()
    for metric, labels in query.selected:
        assert metric in SERVED, f"/metrics has no {metric}"
        assert labels <= SERVED[metric] | GIVEN_BY_PROMETHEUS, (metric, labels)
        known |= SERVED[metric]
    assert query.selected
    assert query.grouped <= known, (text, query.grouped)


def dashboard() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return document


QUERIES = {
    f"{panel['title']} {target['refId']}": (target["expr"], target["legendFormat"])
    for panel in dashboard()["panels"]
    for target in panel.get("targets", ())
}


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_of_the_dashboard_asks_for_what_is_served(name: str) -> None:
    """It parses, its metrics and labels are those of /metrics, and the legend's are its own."""
    query, legend = QUERIES[name]
    check(query)
    labels = {label for metric, _ in Query(query).selected for label in SERVED[metric]}
    assert set(re.findall(r"{{(\w+)}}", legend)) <= labels


def test_the_dashboard_is_whole() -> None:
    """Panels have ids and places of their own, and a data source that is chosen at the import."""
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [tuple(panel["gridPos"].values()) for panel in panels]
    assert len(set(places)) == len(places)
    sources = {p["datasource"]["uid"] for p in panels if p["type"] != "row"}
    assert sources == {"${datasource}"}
    (variable,) = [v for v in dashboard()["templating"]["list"] if v["type"] == "query"]
    named = re.match(r"label_values\((\w+), instance\)", variable["query"]["query"])
    assert named
    assert named[1] in SERVED


RULES = re.findall(r"^ +expr: (.+)$", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_of_the_docs_asks_for_what_is_served(rule: str) -> None:
    check(rule)


@pytest.mark.parametrize(
    "wrong",
    [
        "hostledger_no_such_metric",
        "hostledger_turns",
        'hostledger_turns_total{colour="red"}',
        "sum by (colour) (hostledger_turns_total)",
        "rate(hostledger_turns_total[5m]",
        "rate(hostledger_turns_total[5 minutes])",
        "hostledger_turns_total{outcome=done}",
        "histogram_quantile(0.95, rate(hostledger_turn_seconds[5m]))",
        "hostledger_turns_total hostledger_turns_total",
        "1 + 2",
    ],
)
def test_the_check_notices_what_is_wrong(wrong: str) -> None:
    """Names, labels, brackets, ranges."""
    with pytest.raises(AssertionError):
        check(wrong)
