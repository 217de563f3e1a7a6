"""`hostledger report`: what the ledger says of a time, checked against what was let happen."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from tests.interfaces.commands import Run, refused
from tests.stores import FOUR
from tests.world import TEMPLATE, World

MakeWorld = Callable[..., World]
MakeRun = Callable[[World], Run]

EVERY_STORE = FOUR
on_sqlite = pytest.mark.stores("sqlite")

PRICED = {
    **TEMPLATE,
    "templateId": "Priced",
    "attributes": {**TEMPLATE["attributes"], "priceInfo": ["String", "price:0.5"]},
}
LARGE = {**TEMPLATE, "templateId": "Large", "vmType": "m5.large", "subnetId": "subnet-b1"}


def at(world: World) -> str:
    """The world's time as an option takes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(world.clock.wall))


def report(run: Run, *words: str) -> dict[str, Any]:
    return run("report", *words, "--output", "json").document


def hour(world: World) -> tuple[str, ...]:
    """An hour in which nothing is asked for goes by; the options that say which it was."""
    began = at(world)
    world.run(3600, step=60.0)
    ended = at(world)
    world.request(1)  # the log knows nothing of what is later than its end
    world.run(5)
    return "--since", began, "--until", ended


def prices(world: World, **document: Any) -> None:
    """Give the site a list of prices."""
    path = world.root / "prices.json"
    path.write_text(json.dumps(document))
    world.write_own_config({"reports": {"prices": str(path)}})


@pytest.fixture
def site(make_world: MakeWorld) -> World:
    """Three templates, machines that boot in 20 s and end in 15 s, and a worker."""
    world = make_world(templates=[TEMPLATE, PRICED, LARGE], boot_time=20.0, shutdown_time=15.0)
    world.start_worker()
    return world


@pytest.fixture
def run(site: World, make_run: MakeRun) -> Run:
    return make_run(site)


def test_a_report_is_the_same_on_every_store(site: World, run: Run) -> None:
    """Launches and ends are told by each store's own log."""
    first, *_ = site.run_until_final(site.request(2, "Priced"))["machines"]
    site.run_until_final(site.give_back([first]))

    document = report(run, "usage", "--by", "template,type")

    (row,) = document["rows"]
    assert (row["template"], row["type"]) == ("Priced", "t3.medium")
    assert [row[what] for what in ("machines", "launched", "terminated")] == [2, 2, 1]
    assert document["total"]["machine_hours"] == row["machine_hours"] > 0
    (waited,) = report(run, "capacity")["rows"]
    assert waited["fulfilled"] == 1


@on_sqlite
def test_machine_hours_are_those_within_the_window(site: World, run: Run) -> None:
    """Of machines that live all the hour and of one that is returned in its middle, until AWS
    accepted its end."""
    first, *_ = site.run_until_final(site.request(2, "Priced"))["machines"]
    site.run_until_final(site.request(1, "Large"))
    site.run(60)
    began = at(site)
    site.run(1800, step=60.0)
    site.give_back([first])
    site.run(60)
    site.run(1740, step=60.0)
    until = at(site)
    site.request(1)
    site.run(5)

    document = report(run, "usage", "--since", began, "--until", until, "--by", "template,type")

    large, priced = document["rows"]
    assert (large["template"], large["type"], large["machine_hours"]) == ("Large", "m5.large", 1.0)
    assert (priced["template"], priced["machines"]) == ("Priced", 2)
    assert priced["machine_hours"] == pytest.approx(1.5, abs=5 / 3600)
    assert [priced[what] for what in ("launched", "terminated", "interrupted")] == [0, 1, 0]
    assert document["total"]["machines"] == 3
    assert report(run, "usage")["total"]["launched"] == 4


@on_sqlite
def test_what_was_archived_is_not_passed_over(site: World, run: Run) -> None:
    """A report is refused, with the archive's name, or reads it there."""
    machines = site.run_until_final(site.request(2))["machines"]
    site.run_until_final(site.give_back(machines))
    site.run(60)
    window = ("--until", at(site))
    before = report(run, "usage", *window)
    file = str(site.root / "old.jsonl.gz")
    archived = run("store", "archive", "--to", file, "--reason", "old", "--before", "2999-01-01")
    assert archived.status == 0, archived.err

    refused(run("report", "usage", *window), file, "--archive")
    assert report(run, "usage", *window, "--archive", file) == before


@on_sqlite
def test_what_lives_counts_until_the_end_of_the_window(site: World, run: Run) -> None:
    """And a table for people says the sum."""
    site.run_until_final(site.request(2))
    window = hour(site)

    answer = run("report", "usage", *window, "--by", "zone")

    assert answer.status == 0
    assert answer.out.splitlines()[1:] == [
        "ZONE        MACHINES  MACHINE_HOURS  LAUNCHED  TERMINATED  INTERRUPTED",
        "us-east-1a         2            2.0         0           0            0",
        "total              2            2.0         0           0            0",
    ]


@on_sqlite
def test_an_unknown_price_is_unknown_and_in_no_sum(site: World, run: Run) -> None:
    """What the template says of its price counts, with where it is from; the machines of another
    template have none, and the sum says what it leaves out."""
    site.run_until_final(site.request(2, "Priced"))
    site.run_until_final(site.request(3, "Large"))
    window = hour(site)

    document = report(run, "cost", *window)

    unknown, known = document["rows"]
    assert unknown == {
        "template": "Large", "currency": None, "machines": 3, "machine_hours": 3.0, "cost": None
    }  # fmt: skip
    assert known["cost"] == 1.0
    (total,) = document["totals"]
    assert (total["currency"], total["cost"], total["machine_hours"]) == ("USD", 1.0, 2.0)
    left = document["left_out"]
    assert (left["machines"], left["machine_hours"]) == (3, 3.0)
    assert left["of"][0]["type"] == "m5.large"
    (price,) = document["prices"]
    assert (price["per_hour"], price["currency"]) == (0.5, "USD")
    assert price["source"].startswith("template Priced, revision ")
    assert price["date"] == at(site)[:10]
    told = run("report", "cost", *window).out
    assert "left out, of unknown price: 3.0 machine-hours of 3 machines" in told
    rows = list(csv.DictReader(io.StringIO(run("report", "cost", *window, "--output", "csv").out)))
    assert [row["cost"] for row in rows] == ["unknown", "1.0"]


@on_sqlite
def test_each_price_that_was_used_is_told(site: World, run: Run) -> None:
    """A template's price was changed: machines cost what it said when they were launched."""
    site.run_until_final(site.request(1, "Priced"))
    dearer = {**PRICED["attributes"], "priceInfo": ["String", "price:0.75"]}
    site.write_templates([TEMPLATE, {**PRICED, "attributes": dearer}, LARGE])
    site.run_until_final(site.request(1, "Priced"))

    document = report(run, "cost", *hour(site), "--by", "template")

    assert [row["cost"] for row in document["rows"] if row["cost"]] == [1.25]
    assert sorted(price["per_hour"] for price in document["prices"]) == [0.5, 0.75]


@on_sqlite
def test_the_sites_own_list_counts_first(site: World, run: Run) -> None:
    """By type, price type and region, each entry in its currency: sums are by currency."""
    entry = {"price_type": "ondemand", "region": "us-east-1"}
    own = {"currency": "EUR", "source": "contract 7", "date": "2027-01-02"}
    prices(
        site,
        currency="USD",
        source="AWS's price list",
        date="2027-01-01",
        prices=[
            {**entry, "instance_type": "t3.medium", "per_hour": 0.25},
            {**entry, "instance_type": "m5.large", "per_hour": 2, **own},
            {**entry, "instance_type": "m5.large", "price_type": "spot", "per_hour": 9},
        ],
    )
    site.run_until_final(site.request(2, "Priced"))
    site.run_until_final(site.request(1, "Large"))
    window = hour(site)

    document = report(run, "cost", *window, "--by", "zone,template")

    assert [(t["currency"], t["cost"]) for t in document["totals"]] == [("EUR", 2.0), ("USD", 0.5)]
    assert document["left_out"] == {"machines": 0, "machine_hours": 0, "of": []}
    large, medium = document["prices"]
    assert (large["source"], large["date"]) == ("contract 7", "2027-01-02")
    assert (medium["source"], medium["date"]) == ("AWS's price list", "2027-01-01")


@on_sqlite
@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ({"per_hour": 0}, "greater than 0"),
        ({"per_hour": 1, "perhour": 1}, "perhour"),
        ({"per_hour": 1}, "currency"),
        ({"per_hour": 1, "currency": "USD", "source": "x", "date": "2027-02-30"}, "2027-02-30"),
    ],
)
def test_a_list_that_cannot_be_right_is_refused(
    site: World, run: Run, entry: dict[str, Any], word: str
) -> None:
    """By file and entry: nothing is guessed about money."""
    what = {"instance_type": "m5.large", "price_type": "ondemand", "region": "us-east-1"}
    prices(site, prices=[{**what, **entry}])

    refused(run("report", "cost"), str(site.root / "prices.json"), "prices.0", word)


@on_sqlite
def test_waiting_and_what_was_short(site: World, run: Run) -> None:
    """Time to fulfil over requests, missing units and pools with AWS's reason, by template."""
    for _ in range(3):
        site.run_until_final(site.request(1))
    site.sandbox.set_capacity(0, instance_type="m5.large")
    site.run_until_final(site.request(4, "Large"))

    document = report(run, "capacity")

    large, medium = document["rows"]
    assert (medium["template"], medium["requests"], medium["fulfilled"]) == ("OnDemand-A", 3, 3)
    assert (medium["asked"], medium["missing"]) == (3, 0)
    assert 20 <= medium["seconds_p50"] <= medium["seconds_p99"] < 60
    assert (large["failed"], large["asked"], large["missing"]) == (1, 4, 4)
    assert large["seconds_p95"] == pytest.approx(300, abs=5)
    assert document["shortfalls"] == [
        {
            "template": "Large",
            "pool": "m5.large/subnet-b1/ondemand",
            "reason": "InsufficientInstanceCapacity",
            "requests": 1,
            "missing": 4,
        }
    ]
    by_type = report(run, "capacity", "--by", "type")
    assert [(row["type"], row["requests"]) for row in by_type["rows"]] == [
        (None, 1), ("t3.medium", 3)
    ]  # fmt: skip
    tables = run("report", "capacity", "--output", "csv").out.split("\n\n")
    assert [len(list(csv.DictReader(io.StringIO(table)))) for table in tables] == [2, 1]


@on_sqlite
def test_what_aws_takes_back_is_counted(make_world: MakeWorld, make_run: MakeRun) -> None:
    """As an interruption, in usage and in capacity."""
    spot = {**TEMPLATE, "priceType": "spot", "providerApi": "RunInstances"}
    world = make_world(templates=[spot], boot_time=5.0, shutdown_time=5.0)
    world.start_worker()
    machines = world.run_until_final(world.request(2))["machines"]
    world.sandbox.interrupt([machines[0]["machineId"]])
    world.run(300, step=2.0)
    run = make_run(world)

    (used,) = report(run, "usage")["rows"]
    (waited,) = report(run, "capacity")["rows"]

    assert (used["interrupted"], used["terminated"]) == (1, 1)
    assert (waited["interruptions"], waited["requests"]) == (1, 1)


@on_sqlite
def test_the_picture_shows_how_many_lived_when(site: World, run: Run) -> None:
    """As SVG, whose bands are as high as machines lived, and as PNG of the same."""
    site.run_until_final(site.request(3, "Priced"))
    site.run_until_final(site.request(1, "Large"))
    window = hour(site)
    svg, png = site.root / "fleet.svg", site.root / "fleet.png"

    assert run("report", "usage", *window, "--plot", str(svg)).status == 0
    assert run("report", "cost", *window, "--plot", str(png)).status == 0

    drawn = ElementTree.parse(svg).getroot()
    words = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert words[0].startswith("machines by template, 2027-01-15 ")
    assert {"Priced", "Large"} <= set(words)
    bands = [polygon.get("points") for polygon in drawn.iter("{http://www.w3.org/2000/svg}polygon")]
    ends = [{float(point.split(",")[1]) for point in band.split()} for band in bands[::2]]
    # Three machines, and one above them, in a plane that is 350 high for four.
    assert ends == [{390.0, 127.5}, {127.5, 40.0}]
    with Image.open(png) as image:
        assert image.size == (1920, 880)
        assert image.convert("RGB").getpixel((800, 700)) == (0x00, 0x72, 0xB2)
        assert image.convert("RGB").getpixel((800, 100)) == (0xE6, 0x9F, 0x00)


@on_sqlite
def test_a_missing_extra_is_named(site: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, before the log is read; SVG needs nothing."""
    monkeypatch.setitem(sys.modules, "PIL", None)

    refused(run("report", "usage", "--plot", f"{site.root}/x.png"), "hostledger[plot]")
    assert run("report", "usage", "--plot", f"{site.root}/x.svg").status == 0


@on_sqlite
@pytest.mark.parametrize(
    "words", [("--by", "colour"), ("--by", "type,type"), ("--plot", "x.gif"), ("--since", "noon")]
)
def test_wrong_usage_is_exit_2(run: Run, words: tuple[str, ...]) -> None:
    answer = run("report", "usage", *words)

    assert (answer.status, answer.out) == (2, "")
