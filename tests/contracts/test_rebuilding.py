"""Read models are built anew from the log alone, on every store: they come out equal, what was
wrong is found and exchanged, and whoever is killed meanwhile has changed nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from application import rebuilding
from application.failures import ProjectionFailed
from application.projections import PROJECTIONS, VERSIONS
from domain.machine_request import MachineRequest
from infrastructure.event_store.commit import Rows
from infrastructure.read_models.replica import Replica
from tests.fakes.clock import FakeClock
from tests.histories import History
from tests.stores import FOUR, Place

EVERY_STORE = FOUR
SEEDS = st.lists(st.integers(0, 2**32), min_size=40, max_size=90)
LIFE = list(range(120))

NewPlace = Callable[[str], Place]


class Site:
    """A store with a history, and what asks it."""

    def __init__(self, place: Place, root: Path) -> None:
        self.clock = FakeClock()
        root.mkdir(parents=True, exist_ok=True)
        self.side = str(root / "rebuild.db")
        self.storage: Any = place.storage(str(root))
        (root / "hostledger").mkdir(exist_ok=True)
        self.deployment = self.storage.create(self.clock, {"user": "test"}, "test")
        self.store: Any = self.storage.event_store(self.clock, {"user": "test"})
        self.history = History(self.store, self.clock, lambda: None)

    def live(self, seeds: list[int]) -> None:
        for seed in seeds:
            self.history.step(seed)

    def rebuild(self, progress: rebuilding.Progress = lambda at, end: None) -> rebuilding.Rebuilt:
        with (
            closing(self.storage.log()) as view,
            closing(Replica(self.side, self.deployment)) as replica,
        ):
            within = self.storage.view_of(self.store)
            return rebuilding.rebuild(view, self.store, within, replica, progress)

    def verify(self) -> dict[str, Any]:
        with closing(self.storage.log()) as view, closing(Replica("", self.deployment)) as replica:
            return rebuilding.verify(view, replica, lambda at, end: None)

    def rows(self, table: str) -> list[dict[str, Any]]:
        with closing(self.storage.log()) as view:
            columns = view.columns_of(table)
            return [dict(zip(columns, row, strict=True)) for _, row in view.rows_of(table)]

    def projections(self) -> dict[str, dict[str, Any]]:
        with closing(self.storage.log()) as view:
            return {row["name"]: row for row in rebuilding.projections(view)}

    def spoil(self, *changes: rebuilding.Change) -> None:
        """Put rows in the store that the log does not have so."""
        self.store.exchange(lambda: list(changes), lambda: dict(VERSIONS))

    def spoil_three(self) -> set[tuple[str, tuple[Any, ...]]]:
        """A row that is gone, one that is changed, one too many."""
        gone, changed, *_ = self.rows("requests")
        machine = {**self.rows("machines")[0], "machine_id": "i-stranger", "name": "stranger"}
        changed["machine_count"] = 77
        keys = (gone["request_id"],), (changed["request_id"],), ("i-stranger",)
        self.spoil(
            ("requests", keys[0], None),
            ("requests", keys[1], changed),
            ("machines", keys[2], machine),
        )
        return {("requests", keys[0]), ("requests", keys[1]), ("machines", keys[2])}


@contextmanager
def site_at(place: Place, root: Path) -> Iterator[Site]:
    site = Site(place, root)
    try:
        yield site
    finally:
        site.store.close()


@pytest.fixture
def site(tmp_path: Path, store_kind: str, new_place: NewPlace) -> Iterator[Site]:
    with site_at(new_place(store_kind), tmp_path) as made:
        made.live(LIFE)
        yield made


def test_any_history_is_rebuilt_equal(tmp_path: Path, store_kind: str, new_place: NewPlace) -> None:
    """Nothing differs, so that nothing is exchanged; with everything taken away it is all there
    again."""
    made = 0

    @settings(max_examples=20 if store_kind == "sqlite" else 4)
    @given(SEEDS)
    def check(seeds: list[int]) -> None:
        nonlocal made
        made += 1
        with site_at(new_place(store_kind), tmp_path / str(made)) as site:
            site.live(seeds)
            before = {table: site.rows(table) for table in Rows.KEYS}
            assert site.verify() == {
                "position": site.store.end()[0], "failed": [], "differences": 0, "first": None
            }  # fmt: skip
            assert site.rebuild().exchanged == 0
            site.spoil(
                *(
                    (table, tuple(row[column] for column in Rows.KEYS[table]), None)
                    for table in Rows.KEYS
                    for row in before[table]
                )
            )
            assert site.rebuild().exchanged == sum(map(len, before.values()))
            for table in Rows.KEYS:
                assert site.rows(table) == before[table]

    check()


def test_what_differs_is_found_and_exchanged(site: Site) -> None:
    """Nothing but what differs; and what HostFactory asks by other ways follows its row."""
    spoilt = site.spoil_three()
    told = site.verify()
    assert told["differences"] == 3
    assert (told["first"]["table"], told["first"]["key"]) == min(
        (table, key[0]) for table, key in spoilt if table == "requests"
    )
    assert site.rebuild().exchanged == 3
    assert site.verify()["differences"] == 0
    assert "i-stranger" not in site.storage.read_model().healthy_machines()


def test_the_first_difference_is_told(site: Site) -> None:
    row = site.rows("machines")[0]
    spoilt = {**row, "private_ip_address": "10.9.9.9"}
    site.spoil(("machines", (row["machine_id"],), spoilt))
    assert site.verify()["first"] == {
        "table": "machines",
        "key": row["machine_id"],
        "column": "private_ip_address",
        "position": row["position"],
        "live": "10.9.9.9",
        "rebuilt": row["private_ip_address"],
    }


class Killed(BaseException):
    pass


def test_a_killed_rebuild_leaves_all_as_it_was_and_goes_on(site: Site) -> None:
    site.spoil_three()
    before = {table: site.rows(table) for table in Rows.KEYS}

    def kill(at: int, end: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        site.rebuild(kill)
    assert {table: site.rows(table) for table in Rows.KEYS} == before
    with closing(Replica(site.side, site.deployment)) as replica:
        assert replica.position == site.store.end()[0]
    assert site.rebuild().exchanged == 3


def test_commands_go_on_meanwhile(site: Site) -> None:
    """What is recorded after the rows were compared is in what is exchanged."""
    site.spoil_three()
    told = []

    def ask(at: int, end: int) -> None:
        told.append(at)
        if at == end and len(told) < 3:
            site.live([5, 6, 7, 8])
            request = MachineRequest.ask(f"req-late-{len(told)}", "p", "T", "r", 1, 300.0, "o")
            site.store.save(request)

    rebuilt = site.rebuild(ask)
    assert rebuilt.position == site.store.end()[0]
    assert len(told) >= 2, "it looked again"
    assert site.verify()["differences"] == 0
    assert "req-late-1" in {row["request_id"] for row in site.rows("requests")}


def test_a_failed_projection_stands_alone_and_is_tried_again(site: Site) -> None:
    """It stops at its position, the others go on; nothing is answered; once the code is mended a
    rebuild lets it follow."""
    handlers = PROJECTIONS["templates"]
    mended = handlers["TemplateRevised"]

    def broken(record: Any, rows: Any) -> None:
        raise LookupError("no such thing")

    handlers["TemplateRevised"] = broken
    try:
        site.history.revise()
        while site.projections()["templates"]["failed_at"] is None:
            site.live(list(range(200)))
        before = site.rows("templates")
        failed = site.projections()["templates"]
        end = site.store.end()[0]
        assert failed["error"] == "LookupError: no such thing"
        assert failed["lag"] == end - failed["position"] > 0
        assert site.projections()["requests"]["position"] == end
        with pytest.raises(ProjectionFailed, match="templates stopped at position"):
            site.storage.read_model()
        again = site.rebuild()
        assert [name for name, *_ in again.failed] == ["templates"]
        assert site.rows("templates") == before
        assert site.projections()["templates"] == failed
    finally:
        handlers["TemplateRevised"] = mended
    Path(site.side).unlink()
    assert site.rebuild().failed == []
    assert site.projections()["templates"]["failed_at"] is None
    site.storage.read_model()
    site.store.refuse_failed_projections()
    assert site.verify()["differences"] == 0


def test_another_version_is_noticed(site: Site) -> None:
    with closing(site.storage.log()) as view:
        assert not rebuilding.is_outdated(view)
    site.store.exchange(lambda: (), lambda: {"machines": 0})
    with closing(site.storage.log()) as view:
        assert rebuilding.is_outdated(view)
    assert site.projections()["machines"]["version"] == 0
    site.rebuild()
    assert site.projections()["machines"]["version"] == VERSIONS["machines"]
