"""The reports: what machines were used for, what they cost, how long requests waited for them.

All is read from the log, page by page: what is kept is what lives or is open, and what is told.
Times are in seconds since the epoch; a window is from `since` to before `until`.
"""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import Any, Protocol

from application.instants import Instant, seconds_between
from application.projections.machines import INTERRUPTION
from application.projections.record import Record

Row = dict[str, Any]


class Log(Protocol):
    """One consistent look at a store's log."""

    def end(self) -> tuple[int, str]: ...

    def records(self, topics: Sequence[str], after: int, up_to: int) -> list[Record]: ...


Key = tuple[str | None, ...]
"""The values of what a report is by, in that order; None for what there is not."""

PAGE = 5_000
"""Positions that are read at once."""

HOUR = 3600.0
GROUPS = ("template", "request", "type", "zone")

LAUNCHED = ("MachineLaunched", "MachineAdopted")
LIVES = (*LAUNCHED, "MachineInterrupted", "TerminationAccepted", "MachineTerminated", "MachineLost")
REQUESTED = "MachinesRequested"
ENDS = {
    "RequestFulfilled": "fulfilled",
    "RequestPartlyFulfilled": "partly_fulfilled",
    "RequestFailed": "failed",
    "RequestCancelled": "cancelled",
}
SHORT = "RequestFellShort"

DOLLARS = "USD"
"""What templates say is in dollars."""


@dataclass(frozen=True)
class Window:
    since: float
    until: float

    def holds(self, at: float | None) -> bool:
        return at is not None and self.since <= at < self.until

    def hours(self, began: float, ended: float | None) -> float:
        """How long something lasted within it; what has not ended goes on to its end."""
        end = self.until if ended is None else min(ended, self.until)
        return max(0.0, end - max(began, self.since)) / HOUR

    def told(self) -> Row:
        return {"since": _at(self.since), "until": _at(self.until)}


@dataclass(slots=True)
class Life:
    """A machine from EC2's launch time until EC2 accepted its end, or until it was seen to be gone;
    `ended` is None while it lives."""

    provider: str
    template: str
    revision: str
    request: str | None
    type: str
    price_type: str
    account: str
    region: str
    zone: str
    began: float
    ended: float | None = None
    interrupted: float | None = None


@dataclass(frozen=True)
class Price:
    """Of one machine for an hour; `source` and `date` say who says so and when."""

    per_hour: float
    currency: str
    source: str
    date: str


TAKEN_BACK = ("Server.SpotInstanceTermination", "Server.SpotInstanceShutdown")
"""In the reason of a machine's end: AWS took it, though no notice had told so."""

Listed = Mapping[tuple[str, str, str], Price]
"""(instance type, price type, region) -> price: the site's own list."""


def window_of(log: Log, since: float | None, until: float | None, now: float) -> Window:
    """From the first event, until now, unless it is said otherwise; nothing is known of later."""
    position, _ = log.end()
    first, latest = (log.records((), at - 1, at) for at in (1, position))
    # Recorded time never goes back, whatever a clock says now; the last event is in the window.
    now = max(now, *(record.instant[0] + 0.001 for record in latest), 0.0)
    if since is None:
        since = first[0].instant[0] if first else now
    end = now if until is None else min(until, now)
    return Window(since, max(since, end))


def usage(log: Log, window: Window, by: Sequence[str]) -> Row:
    """Machine-hours, and how many machines were launched, ended and interrupted, by group."""
    rows: dict[Key, Row] = {}
    for life in lives(log, window.until):
        row = {
            "machines": 1,
            "machine_hours": window.hours(life.began, life.ended),
            "launched": int(window.holds(life.began)),
            "terminated": int(window.holds(life.ended)),
            "interrupted": int(window.holds(life.interrupted)),
        }
        if row["machine_hours"] or row["launched"] or row["terminated"]:
            _add(rows, _key(life, by), row)
    total = _sum(rows.values(), ("machines", *USED))
    return {**window.told(), "by": list(by), "rows": _told(rows, by), "total": total}


USED = ("machine_hours", "launched", "terminated", "interrupted")


def cost(
    log: Log,
    window: Window,
    by: Sequence[str],
    listed: Listed,
    *,
    began_inside: bool = False,
) -> Row:
    """Machine-hours times what is known of prices, by group and currency. Hours without a known
    price are rows of their own, have no cost, and are in no sum but `left_out`. `began_inside`:
    only of machines that were launched in the window."""
    own = _template_prices(log, window.until)
    rows: dict[Key, Row] = {}
    prices: set[tuple[Key, Price]] = set()
    unknown: dict[Key, Row] = {}
    for life in lives(log, window.until):
        hours = window.hours(life.began, life.ended)
        if not hours or (began_inside and life.began < window.since):
            continue
        price, of = _price(life, listed, own)
        counted = {"machines": 1, "machine_hours": hours}
        currency = price.currency if price else None
        spent = hours * price.per_hour if price else None
        _add(rows, (*_key(life, by), currency), {**counted, "cost": spent})
        if price is None:
            _add(unknown, of, counted)
        else:
            prices.add((of, price))
    totals: dict[Key, Row] = {}
    for key, row in rows.items():
        if key[-1] is not None:
            _add(totals, key[-1:], row)
    return {
        **window.told(),
        "by": list(by),
        "rows": _told(rows, (*by, "currency")),
        "totals": _told(totals, ("currency",)),
        "left_out": {
            **_sum(unknown.values(), ("machines", "machine_hours")),
            "of": _told(unknown, PRICED),
        },
        "prices": [
            {**dict(zip(PRICED, of, strict=True)), **asdict(price)}
            for of, price in sorted(prices, key=lambda item: (_order(item[0]), item[1].source))
        ],
    }


PRICED = ("type", "price_type", "region", "template")
"""What a price is of; the site's list says nothing of templates."""


def _price(
    life: Life, listed: Listed, own: Mapping[tuple[str, str, str], dict[str, Price]]
) -> tuple[Price | None, Key]:
    """The site's list counts before what the machine's template said when it was launched."""
    what = (life.type, life.price_type, life.region)
    if what in listed:
        return listed[what], (*what, None)
    said = own.get((life.provider, life.template, life.revision), {})
    return said.get(life.account, said.get("")), (*what, life.template)


def _template_prices(log: Log, until: float) -> dict[tuple[str, str, str], dict[str, Price]]:
    """(provider, template, revision) -> account, or "" for any -> what it said of prices."""
    found: dict[tuple[str, str, str], dict[str, Price]] = {}
    for record in events(log, ("TemplateRevised",), until):
        data = record.data
        content = data["content"]
        source = f"template {data['template_id']}, revision {data['revision'][:12]}"
        said = {"": content.get("price")}
        said |= {name: own.get("price") for name, own in content.get("accounts", {}).items()}
        found[data["provider"], data["template_id"], data["revision"]] = {
            account: Price(price, DOLLARS, source, record.recorded_at[:10])
            for account, price in said.items()
            if price
        }
    return found


# -- capacity -----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Open:
    asked_at: Instant
    machine_count: int
    own: Life
    """What is known of a request that got no machine."""
    keys: set[Key] = field(default_factory=set)


def capacity(log: Log, window: Window, by: Sequence[str]) -> Row:
    """How long requests waited until they were final, what they lacked and why, and what AWS took
    back. A request that became final in the window counts in each group in which it got a machine.
    """
    waits: dict[Key, array[float]] = {}
    rows: dict[Key, Row] = {}
    shortfalls: dict[Key, Row] = {}
    opened: dict[str, _Open] = {}
    of_request = [name for name in by if name in ("template", "request")]
    for record in events(log, (REQUESTED, SHORT, *ENDS, *LAUNCHED), window.until):
        inside = window.holds(record.instant[0])
        data = record.data
        if record.topic == REQUESTED:
            life = _life_of_request(record)
            opened[record.identifier] = _Open(record.instant, data["machine_count"], life)
        elif record.topic in LAUNCHED:
            if (request := opened.get(data.get("request_id", ""))) is not None:
                request.keys.add(_key(_launched(record), by))
        elif (request := opened.get(record.identifier)) is None:
            continue
        elif record.topic == SHORT:
            if inside:
                pool = (*_key(request.own, of_request), data["pool"] or None, data["reason"])
                _add(shortfalls, pool, {"requests": 1, "missing": data["missing"]})
        else:
            del opened[record.identifier]
            waited = seconds_between(request.asked_at, record.instant)
            for key in (request.keys or {_key(request.own, by)}) if inside else ():
                _add(rows, key, _final(record, request))
                if record.topic != "RequestCancelled":
                    waits.setdefault(key, array("d")).append(waited)
    for life in lives(log, window.until):
        if window.holds(life.interrupted):
            _add(rows, _key(life, by), {**NOTHING, "interruptions": 1})
    told = _told(rows, by)
    for row in told:
        wait = sorted(waits.get(tuple(row[name] for name in by), ()))
        row |= {f"seconds_p{percent}": percentile(wait, percent) for percent in PERCENTS}
    return {
        **window.told(),
        "by": list(by),
        "by_request": of_request,
        "rows": told,
        "shortfalls": _told(shortfalls, (*of_request, "pool", "reason")),
    }


PERCENTS = (50, 95, 99)
NOTHING = {
    "requests": 0,
    **dict.fromkeys(ENDS.values(), 0),
    "asked": 0,
    "missing": 0,
    "interruptions": 0,
}


def _final(record: Record, request: _Open) -> Row:
    """What one request adds to its group: units that it asked for, and those that it never got."""
    missing = record.data.get("missing", 0)
    if record.topic == "RequestFailed":
        missing = request.machine_count
    asked = request.machine_count
    return {**NOTHING, "requests": 1, ENDS[record.topic]: 1, "asked": asked, "missing": missing}


def percentile(ordered: Sequence[float], percent: int, digits: int = 1) -> float | None:
    """The least value that so many percent of all are not above; None of nothing."""
    if not ordered:
        return None
    return round(ordered[math.ceil(len(ordered) * percent / 100) - 1], digits)


# -- the fleet over time ------------------------------------------------------------------------

MOST_BANDS = 9
OTHERS = "others"


def fleet(log: Log, window: Window, by: str, steps: int) -> dict[str, list[float]]:
    """Group -> how many of its machines lived on average in each step of the window, the groups
    that lived most first; what is beyond MOST_BANDS of them is `others`."""
    hours: dict[str, float] = {}
    for life in lives(log, window.until):
        name = _name(life, by)
        hours[name] = hours.get(name, 0.0) + window.hours(life.began, life.ended)
    shown = sorted((n for n in hours if hours[n]), key=lambda name: (-hours[name], name))
    shown = shown if len(shown) <= MOST_BANDS + 1 else [*shown[:MOST_BANDS], OTHERS]
    width = (window.until - window.since) / steps
    whole = {name: [0] * (steps + 1) for name in shown}
    part = {name: [0.0] * (steps + 1) for name in shown}
    for life in lives(log, window.until):
        if not window.hours(life.began, life.ended):
            continue
        name = _name(life, by)
        name = name if name in whole else OTHERS
        end = window.until if life.ended is None else min(life.ended, window.until)
        first = (max(life.began, window.since) - window.since) / width
        last = (end - window.since) / width
        # Within the first and the last step for a part of it, in those between wholly.
        whole[name][int(first)] += 1
        whole[name][int(last)] -= 1
        part[name][int(first)] -= first - int(first)
        part[name][int(last)] += last - int(last)
    return {
        name: [
            max(0.0, full + rest)
            for full, rest in zip(accumulate(whole[name][:-1]), part[name], strict=False)
        ]
        for name in shown
    }


def _name(life: Life, by: str) -> str:
    return getattr(life, by) or "-"


# -- the log ------------------------------------------------------------------------------------


def lives(log: Log, until: float) -> Iterator[Life]:
    """Every machine that was there before then: those that ended, in that order, then the
    others."""
    living: dict[str, Life] = {}
    for record in events(log, LIVES, until):
        at = record.instant[0]
        if record.topic in LAUNCHED:
            living[record.identifier] = _launched(record)
        elif record.topic == "TerminationAccepted":
            for machine_id in record.data["machine_ids"]:
                if machine_id in living:
                    living[machine_id].ended = at
        elif (life := living.get(record.identifier)) is None:
            continue
        elif record.topic == "MachineInterrupted":
            if record.data["reason"] == INTERRUPTION:
                life.interrupted = at
        else:
            if life.interrupted is None and _was_taken_back(record):
                life.interrupted = at
            life.ended = life.ended or at
            yield living.pop(record.identifier)
    yield from living.values()


def events(log: Log, topics: Sequence[str], until: float) -> Iterator[Record]:
    """The events of these topics that were recorded before then, in the order of the log."""
    end, _ = log.end()
    for start in range(0, end, PAGE):
        for record in log.records(topics, start, start + PAGE):
            if record.instant[0] >= until:
                return
            yield record


def _was_taken_back(record: Record) -> bool:
    return any(code in record.data["reason"] for code in TAKEN_BACK)


def _launched(record: Record) -> Life:
    data = record.data
    return Life(
        data["provider"],
        data["template_id"],
        data["revision"],
        data.get("request_id") or None,
        data["instance_type"],
        data["price_type"],
        data["account"],
        data["region"],
        data["zone"],
        float(data["launch_time"]) or record.instant[0],
    )


def _life_of_request(record: Record) -> Life:
    data = record.data
    return Life(
        provider=data["provider"],
        template=data["template_id"],
        revision=data["revision"],
        request=record.identifier,
        type="",
        price_type="",
        account="",
        region="",
        zone="",
        began=record.instant[0],
    )


# -- rows ---------------------------------------------------------------------------------------


def _key(life: Life, by: Sequence[str]) -> Key:
    return tuple(getattr(life, name) or None for name in by)


def _add(rows: dict[Key, Row], key: Key, row: Row) -> None:
    known = rows.setdefault(key, dict.fromkeys(row, 0))
    for name, value in row.items():
        known[name] = None if value is None else known[name] + value


def _sum(rows: Any, names: Sequence[str]) -> Row:
    rows = list(rows)
    return {name: _rounded(sum(row[name] for row in rows)) for name in names}


def _told(rows: dict[Key, Row], columns: Sequence[str]) -> list[Row]:
    return [
        {
            **dict(zip(columns, key, strict=True)),
            **{name: _rounded(value) for name, value in rows[key].items()},
        }
        for key in sorted(rows, key=_order)
    ]


def _order(key: Key) -> tuple[str, ...]:
    return tuple(value or "" for value in key)


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def _at(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
