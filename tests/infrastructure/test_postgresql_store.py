"""What a PostgreSQL store promises beyond what every store does: errors, copies, pool, answers that
are lost on the way."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest

from application import crash_points
from application.failures import (
    AlreadyTracked,
    Conflict,
    Fenced,
    LogDamaged,
    StoreBusy,
    StoreError,
    StoreInert,
    StoreMissing,
    StoreNewer,
)
from application.version import VERSION
from domain.identifiers import REQUEST, new_id
from domain.machine_request import MachineRequest
from infrastructure.clock import SystemClock
from infrastructure.event_store import schema, sqlite_file
from infrastructure.event_store.commit import to_record
from infrastructure.event_store.postgresql import LOCK, MANY
from infrastructure.event_store.postgresql_driver import (
    SCHEMA_VERSION,
    Connection,
    Session,
    name_of,
)
from infrastructure.event_store.postgresql_setup import FIRST
from tests.fakes.clock import FakeClock
from tests.infrastructure.postgresql_stores import storage_at
from tests.postgresql import Server, server, within_patience
from tests.stores import at_crash_point

ACTOR = {"user": "test"}


@pytest.fixture
def url(database_url: str) -> str:
    """Of a database with a new store."""
    storage_at(database_url).create(FakeClock(), ACTOR, VERSION)
    return database_url


def request() -> tuple[str, list[Any]]:
    """The id of a new request, and its events as `append` takes them."""
    identifier = new_id(REQUEST, os.urandom(16))
    asked = MachineRequest.ask(identifier, "awsinst", "A", "r", 1, 300.0, "hostfactory", "")
    return identifier, [to_record(event) for event in asked.collect_events()]


def ask(url: str, statement: str) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def backends(url: str) -> int:
    """How many connections of ours the server has to this database."""
    return ask(  # type: ignore[no-any-return]
        url,
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hostledger' "
        "AND datname = current_database()",
    )[0][0]


# -- making one -----------------------------------------------------------------------------------


def test_create_refuses_where_a_store_or_a_stranger_is(url: str, postgresql: Server) -> None:
    """Two deployments cannot share a database by mistake, nor can ours write into somebody's."""
    with pytest.raises(StoreError, match="exists already: a deployment has one store"):
        storage_at(url).create(FakeClock(), ACTOR, VERSION)
    other = postgresql.database()
    ask(other, "CREATE TABLE requests (mine integer)")
    with pytest.raises(StoreError, match="a table requests that is not ours"):
        storage_at(other).create(FakeClock(), ACTOR, VERSION)
    assert ask(other, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == [
        ("requests",)
    ]
    with pytest.raises(StoreMissing, match="store init"):
        storage_at(other).read_model()


def test_the_documents_statements_run_as_printed(url: str) -> None:
    """The requirements' own SQL for tuning."""
    for statement in (
        "CREATE INDEX idx_requests_status ON requests(status);",
        "CREATE INDEX idx_requests_created_at ON requests(created_at);",
        "CREATE INDEX idx_machines_request_id ON machines(request_id);",
        "CREATE INDEX idx_machines_status ON machines(status);",
        "ANALYZE requests;",
        "ANALYZE machines;",
        "ANALYZE templates;",
    ):
        ask(url, statement)


def test_an_older_schema_goes_forward_and_a_newer_one_is_refused(
    database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By whoever comes first, a read too; and it says so."""
    assert SCHEMA_VERSION == sqlite_file.SCHEMA_VERSION == 1 + len(schema.MIGRATIONS)
    session = Session("old", Connection(database_url))
    place = session.place()
    session.run(FIRST)
    session.run("INSERT INTO store VALUES (1, 'dep', 1, %s)", (place,))
    session.close()
    storage_at(database_url).read_model().connection.close()
    assert "schema 1 was migrated to 2" in capsys.readouterr().err
    assert ask(database_url, "SELECT version FROM schema_version") == [(SCHEMA_VERSION,)]
    ask(database_url, "UPDATE schema_version SET version = version + 1")
    for opened in (
        storage_at(database_url).read_model,
        lambda: storage_at(database_url).event_store(FakeClock(), ACTOR),
    ):
        with pytest.raises(StoreNewer, match="run the release that wrote it"):
            opened()


def test_a_copy_is_inert_until_it_is_activated(url: str, postgresql: Server) -> None:
    """A restored database is another one; a renamed one is the same."""
    name = urlsplit(url).path.strip("/")
    ask(postgresql.url("postgres"), f"CREATE DATABASE copy_of_{name} TEMPLATE {name}")
    copy = storage_at(url.replace(f"/{name}?", f"/copy_of_{name}?"))
    for opened in (copy.read_model, lambda: copy.event_store(FakeClock(), ACTOR)):
        with pytest.raises(StoreInert, match="is a copy"):
            opened()
    with closing(copy.any_store()) as view:
        assert "is a copy" in view.inert
        assert view.facts()["incarnation"] == 1
    assert copy.activate(FakeClock(), ACTOR, "the original is gone") == 2
    copy.read_model().connection.close()
    ask(postgresql.url("postgres"), f"ALTER DATABASE {name} RENAME TO renamed_{name}")
    renamed = storage_at(url.replace(f"/{name}?", f"/renamed_{name}?"))
    renamed.read_model().connection.close()


def test_a_rehearsal_copies_the_log_and_leaves_the_store(url: str, tmp_path: Path) -> None:
    """As a SQLite store with the same events."""
    store = storage_at(url).event_store(FakeClock(), ACTOR)
    for _ in range(3):
        store.append(request()[1])
    path = storage_at(url).rehearse(str(tmp_path))
    connection = sqlite_file.open_for_reading(path)
    ours = connection.execute("SELECT position, chain FROM events ORDER BY position").fetchall()
    assert ours == ask(url, "SELECT position, chain FROM events ORDER BY position")
    assert connection.execute("SELECT count(*) FROM requests").fetchone() == (3,)
    connection.close()
    store.close()


# -- the log --------------------------------------------------------------------------------------


def test_a_log_whose_end_was_cut_off_is_not_appended_to(url: str) -> None:
    """Nor one whose last event was changed."""
    store = storage_at(url).event_store(FakeClock(), ACTOR)
    for _ in range(2):
        store.append(request()[1])
    ask(url, "UPDATE events SET data = data || ' ' WHERE position = 3")
    with pytest.raises(LogDamaged, match="changed at or after position 3"):
        store.append(request()[1])
    ask(url, "DELETE FROM events WHERE position = 3")
    with pytest.raises(LogDamaged, match="changed at or after position 2"):
        store.append(request()[1])
    store.close()


def test_refusals_leave_nothing_half_written(url: str) -> None:
    """A taken version, a command twice, a lost lease, a position passed: no event, no row."""
    store = storage_at(url).event_store(FakeClock(), ACTOR)
    _, records = request()
    store.append(records, command=("cmd-1", "done"), tracking=("policy", 5))
    before = ask(url, "SELECT count(*) FROM events")
    with pytest.raises(Conflict):
        store.append(records)
    with pytest.raises(Conflict):
        store.append(request()[1], command=("cmd-1", "again"))
    with pytest.raises(Fenced):
        store.append(request()[1], fence=("default/us-east-1", 7))
    with pytest.raises(AlreadyTracked):
        store.append(request()[1], tracking=("policy", 5))
    assert ask(url, "SELECT count(*) FROM events") == before
    assert ask(url, "SELECT count(*) FROM requests") == [(1,)]
    assert store.command_result("cmd-1") == "done"
    store.close()


def test_many_events_are_copied_as_they_are(url: str) -> None:
    """COPY has signs of its own, which texts may hold too; a conflict among many is one."""
    awkward = "\\N \\t \\\\ \t\r\n \u2028 \U0001f600 '\"$1%s"
    many = [(f"template-{n}", 1, "TemplateRetired", 1, awkward, None) for n in range(3 * MANY)]
    with closing(storage_at(url).event_store(FakeClock(), ACTOR)) as store:
        ids = store.append(many)
        assert ask(url, "SELECT event_id FROM events WHERE stream <> 'deployment'") == [
            (event_id,) for event_id in ids
        ]
        for stream, _, _, _, data, _ in many:
            assert store.select_events(stream, 0, 9, False, 9) == [(1, "TemplateRetired", data)]
        more = [(f"request-{n}", *event[1:]) for n, event in enumerate(many)]
        with pytest.raises(Conflict):
            store.append([*more, many[0]])
        assert store.end()[0] == 1 + len(many)
        store.append(more)  # checks the digest of the last one
    with closing(storage_at(url).event_store(FakeClock(), ACTOR)) as store:
        store.append([("request-later", *many[0][1:])])


def test_a_read_model_that_cannot_follow_stops_alone(url: str) -> None:
    """The events are kept; what no column takes is written nowhere."""
    store = storage_at(url).event_store(FakeClock(), ACTOR)
    _, records = request()
    stream, version, topic, class_version, data, fields = records[0]
    fields = {**fields, "machine_count": 2**70}
    store.append([(stream, version, topic, class_version, data, fields)])
    assert ask(url, "SELECT count(*) FROM events") == [(2,)]
    assert ask(url, "SELECT name, failed_at FROM projections") == [("requests", 2)]
    assert ask(url, "SELECT count(*) FROM requests") == [(0,)]
    with pytest.raises(StoreError, match="stopped at position 2"):
        storage_at(url).read_model()
    store.append(request()[1])
    store.close()


def test_a_following_reader_misses_nothing(url: str) -> None:
    """Six writers at once; positions appear in their order."""
    writers = [storage_at(url).event_store(FakeClock(), ACTOR) for _ in range(6)]
    reader = storage_at(url).event_store(FakeClock(), ACTOR)
    threads = [
        threading.Thread(target=lambda w=writer: [w.append(request()[1]) for _ in range(30)])
        for writer in writers
    ]
    for thread in threads:
        thread.start()
    seen = [0]
    while seen[-1] < 181:
        rows = reader.connection.execute(
            "SELECT position FROM events WHERE position > ? ORDER BY position", (seen[-1],)
        )
        seen += [position for (position,) in rows]
    for thread in threads:
        thread.join()
    assert seen == list(range(182))
    for store in (*writers, reader):
        store.close()


# -- answers that are lost ------------------------------------------------------------------------


def reaching(point: str, act: Callable[[], object]) -> AbstractContextManager[None]:
    """Within: the act is done when the point is reached, once."""

    def once(_: str) -> None:
        crash_points.crash_at("")
        act()

    return at_crash_point(point, once)


def test_a_connection_that_breaks_before_the_commit(url: str) -> None:
    """Nothing was recorded, which is said; the next append goes on."""
    store = storage_at(url).event_store(FakeClock(), ACTOR)

    def cut() -> None:
        ask(
            url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'hostledger' AND datname = current_database()",
        )

    with (
        reaching("commit.MachinesRequested.before", cut),
        pytest.raises(StoreError, match="nothing was recorded"),
    ):
        store.append(request()[1])
    assert ask(url, "SELECT count(*) FROM events") == [(1,)]
    store.append(request()[1])
    store.close()


class Proxy:
    """Between a store and its server; `deaf` swallows what the server says from then on and ends
    the connection as soon as it has said something."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.deaf = False
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            there = socket.create_connection(("127.0.0.1", self._port))
            for pair in ((client, there, False), (there, client, True)):
                threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        try:
            while data := source.recv(65536):
                if is_answer and self.deaf:
                    self.deaf = False
                    break
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            with closing(end):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize("kind", ["events", "tracking", "together"])
def test_an_answer_that_is_lost_after_the_commit_is_no_conflict(
    postgresql: Server, kind: str
) -> None:
    """The commit is found on another connection, and counts."""
    url = postgresql.database(tcp=True)
    storage_at(url).create(FakeClock(), ACTOR, VERSION)
    with closing(Proxy(postgresql.port)) as proxy:
        store = storage_at(url.replace(f":{postgresql.port}/", f":{proxy.port}/")).event_store(
            FakeClock(), ACTOR
        )
        _, records = request()
        name = records[0][2] if kind == "events" else kind
        with reaching(f"commit.{name}.before", lambda: setattr(proxy, "deaf", True)):
            if kind == "events":
                ids = store.append(records, command=("cmd-1", "done"), tracking=("policy", 3))
                assert ask(url, "SELECT event_id FROM events WHERE position = 2") == [(ids[0],)]
            elif kind == "together":
                works = [
                    partial(store.append, records, tracking=("policy", 3)),
                    partial(store.append, records),
                    partial(store.append, request()[1]),
                ]
                one, refused, other = store.together(works)
                assert ask(url, "SELECT event_id FROM events WHERE position > 1") == [
                    (one[0],),
                    (other[0],),
                ]
                assert isinstance(refused, Conflict)
            else:
                store.append([], tracking=("policy", 3))
        assert not proxy.deaf, "no answer was lost"
        assert ask(url, "SELECT position FROM tracking") == [(3,)]
        store.append(request()[1])
        store.close()


# -- errors ---------------------------------------------------------------------------------------


def test_errors_name_the_store_the_cause_and_the_next_step(url: str, postgresql: Server) -> None:
    """One StoreError each, and no password."""
    name = urlsplit(url).path.strip("/")
    tcp = postgresql.url(name, tcp=True)
    password = urlsplit(tcp).password
    assert password is not None

    def said(broken: str) -> str:
        with pytest.raises(StoreError) as caught:
            storage_at(broken).read_model()
        with pytest.raises(StoreError):
            storage_at(broken).event_store(FakeClock(), ACTOR)
        text = str(caught.value)
        assert password not in text and "secret" not in text
        assert name_of(broken) in text
        return text

    assert "Connection refused" in (down := said(tcp.replace(f":{postgresql.port}/", ":1/")))
    assert "is the server running" in down
    wrong = said(tcp.replace(password, "secret"))
    assert "password authentication failed" in wrong and "~/.pgpass" in wrong
    absent = said(tcp.replace(f"/{name}", "/no_such"))
    assert 'database "no_such" does not exist' in absent and "createdb" in absent
    storage_at(tcp).read_model().connection.close()


def test_errors_of_a_server_that_refuses(url: str, postgresql: Server) -> None:
    """Full and slow: nothing is half written. A read needs nothing that can be written."""
    name = urlsplit(url).path.strip("/")
    store = storage_at(url).event_store(FakeClock(), ACTOR)

    def refusal(kind: type[Exception] = StoreError) -> str:
        with pytest.raises(kind) as caught:
            store.append(request()[1])
        return str(caught.value)

    ask(
        url,
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION "
        "'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$; "
        "CREATE TRIGGER full_disk BEFORE INSERT ON requests EXECUTE FUNCTION full_disk()",
    )
    assert "make room on the server's disk" in (full := refusal())
    assert "No space left on device; nothing was recorded" in full
    ask(url, "DROP TRIGGER full_disk ON requests")
    assert ask(url, "SELECT count(*) FROM events") == [(1,)]
    store.close()
    ask(url, f"ALTER DATABASE {name} SET statement_timeout = '200ms'")
    with closing(psycopg2.connect(url)) as holder:
        holder.cursor().execute(f"SELECT pg_advisory_xact_lock({LOCK})")
        store = storage_at(url).event_store(FakeClock(), ACTOR)
        assert "statement timeout" in (slow := refusal()) and "statement_timeout" in slow
    store.close()
    ask(url, f"ALTER DATABASE {name} RESET statement_timeout")
    ask(url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    storage_at(url).read_model().connection.close()


def test_a_lock_that_is_not_let_go_makes_the_store_busy(url: str) -> None:
    """After the site's own lock_timeout, if it has one."""
    name = urlsplit(url).path.strip("/")
    ask(url, f"ALTER DATABASE {name} SET lock_timeout = '100ms'")
    store = storage_at(url).event_store(FakeClock(), ACTOR)
    with closing(psycopg2.connect(url)) as holder:
        holder.cursor().execute(f"SELECT pg_advisory_xact_lock({LOCK})")
        with pytest.raises(StoreBusy, match="another process holds the store: try again"):
            store.append(request()[1])
    store.append(request()[1])
    store.close()


def test_a_server_that_was_started_anew_is_used_again() -> None:
    """While it is down the store says so; connections that it cut meanwhile are replaced."""
    with server() as own:
        url = own.database()
        storage_at(url).create(FakeClock(), ACTOR, VERSION)
        store = storage_at(url).event_store(FakeClock(), ACTOR)
        store.append(request()[1])
        own.kill()
        with pytest.raises(StoreError, match="is the server running"):
            store.append(request()[1])
        with pytest.raises(StoreError, match="is the server running"):
            store.changes()
        own.start()
        store.append(request()[1])
        own.stop()
        own.start()
        assert store.changes() == store.changes()
        assert ask(url, "SELECT count(*) FROM events") == [(3,)]
        store.close()


# -- the pool and the answers that are kept -------------------------------------------------------


def test_the_pool_has_the_size_that_was_chosen(url: str) -> None:
    """Seen from the server: so many stay open, so many more may be."""
    store = storage_at(url, pool_size=2, max_overflow=1, pool_timeout=0.2).event_store(
        FakeClock(), ACTOR
    )
    source = store.connection.source
    taken = [source.take() for _ in range(3)]
    assert backends(url) == 3
    with pytest.raises(StoreBusy, match=r"in use for 0\.2 s"):
        source.take()
    for connection in taken:
        source.give_back(connection, False)
    assert within_patience(lambda: backends(url) == 2)
    store.close()
    assert within_patience(lambda: backends(url) == 0)


def test_a_connection_is_opened_anew_after_its_time(url: str) -> None:
    """`pool_recycle` in seconds."""
    for recycle, changed in ((1800, False), (0.05, True)):
        store = storage_at(url, pool_recycle=recycle).event_store(FakeClock(), ACTOR)

        def pid(store: Any = store) -> int:
            return store.connection.run("SELECT pg_backend_pid()").fetchone()[0]  # type: ignore[no-any-return]

        first = pid()
        if changed:
            assert within_patience(lambda: pid() != first)  # noqa: B023
        else:
            assert {pid() for _ in range(20)} == {first}
        store.close()


def test_kept_answers_are_never_stale(url: str) -> None:
    """Counted when used; a write of anybody's, of the notebook too, ends them."""
    store = storage_at(url, query_cache_size=10).event_store(FakeClock(), ACTOR)
    other = storage_at(url).event_store(FakeClock(), ACTOR)
    work = storage_at(url).work(store, "default", "us-east-1")
    assert work.open_requests() == []
    assert work.open_requests() == []
    assert store.query_cache_hits == 1
    identifier, records = request()
    other.append(records)
    assert [row["request_id"] for row in work.open_requests()] == [identifier]
    notebook = storage_at(url).notebook(other, "default", "us-east-1")
    mine = storage_at(url).notebook(store, "default", "us-east-1")
    assert mine.calling("hf") == 0.0
    clock = FakeClock()
    first = clock.now()
    clock.advance(30)
    notebook.add_calling("hf", [first, clock.now()])
    assert mine.calling("hf") == 30.0
    hits = store.query_cache_hits
    for number in range(40):
        work.stream_version(f"none-{number}")
    for number in range(40):
        work.stream_version(f"none-{number}")
    assert store.query_cache_hits == hits  # ten are kept
    off = storage_at(url, enable_query_cache=False).event_store(FakeClock(), ACTOR)
    for _ in range(3):
        off.command_result("none")
    assert off.query_cache_hits == 0
    for each in (store, other, off):
        each.close()


# -- lease and sightings --------------------------------------------------------------------------


def test_the_lease_is_told_by_the_databases_clock(url: str) -> None:
    """One holder, whose commits carry its number; given back, it is another's at once."""
    storage, clock = storage_at(url), SystemClock()
    store = storage.event_store(clock, ACTOR)
    model = storage.read_model()
    leases = [
        storage.lease(store, "default/us-east-1", owner, VERSION, clock, 60.0, "")
        for owner in ("one", "two")
    ]
    assert not model.holder_lives()
    assert leases[0].acquire()
    changes = store.changes()
    assert not leases[1].acquire()
    assert store.changes() == changes
    assert 55 < leases[0].remaining() <= 60
    model.again()
    assert model.holder_lives()
    assert leases[0].renew()
    store.append(request()[1], fence=leases[0].fence)
    ask(url, "UPDATE leases SET expires = extract(epoch FROM clock_timestamp()) - 1")
    assert leases[1].acquire()
    assert 0 <= leases[1].since_another() < 5
    with pytest.raises(Fenced):
        store.append(request()[1], fence=leases[0].fence)
    assert not leases[0].renew()
    leases[1].release()
    model.again()
    assert not model.holder_lives()
    newer = storage.lease(store, "default/us-east-1", "three", "99.0", clock, 60.0, "")
    ((before,),) = ask(url, "SELECT expires FROM leases")
    assert leases[0].acquire()
    since = leases[0].since_another()
    assert 0 < since < 30, "the holder before it was followed"
    leases[0].release()
    ((after,),) = ask(url, "SELECT expires FROM leases")
    assert before == pytest.approx(after, abs=25)
    ask(url, "UPDATE leases SET expires = 0")
    assert leases[0].acquire()
    assert leases[0].since_another() == float("inf")
    leases[0].release()
    assert ask(url, "SELECT expires FROM leases") == [(0.0,)]
    assert leases[0].acquire()
    assert not newer.acquire()
    assert not leases[0].renew()  # asked to end
    model.connection.close()
    store.close()


def test_sightings_are_noted_at_once_or_seldom(url: str) -> None:
    """News in a row of its own; that HostFactory is calling, once a minute for a host, and that it
    names hosts too, whatever else it asks for meanwhile."""
    storage, clock = storage_at(url), FakeClock()
    store = storage.event_store(clock, ACTOR)
    sightings = storage.sightings(store)
    model = storage.read_model()
    assert sightings.noted() == 0
    calling = {"verb": "getReturnRequests", "provider": "awsinst"}
    for _ in range(5):
        storage.note(clock.now(), calling, model)
        clock.advance(10)
    storage.note(clock.now(), {**calling, "machines": ["i-1"]}, model)
    for _ in range(2):
        storage.note(clock.now(), {**calling, "hosts": 4}, model)
    assert model.request("none") is None  # the look goes on
    lines = sightings.take()
    told = [(line.get("machines"), line.get("hosts")) for line in lines]
    assert told == [(None, None), (["i-1"], None), (None, 4)]
    assert sightings.noted() > 0 and sightings.waiting()
    sightings.done()
    assert not sightings.waiting() and sightings.take() == [] and sightings.noted() == 0
    storage.note(clock.now(), calling, model)
    assert sightings.take() == []
    clock.advance(20)
    storage.note(clock.now(), calling, model)
    assert len(sightings.take()) == 1
    model.connection.close()
    store.close()


# -- the reads ------------------------------------------------------------------------------------

LIBRARIES = ("sqlalchemy", "pydantic", "eventsourcing", "boto3", "botocore", "dependency_injector")


def test_a_read_needs_the_driver_alone(url: str) -> None:
    """psycopg2 and what it drags in; none of the libraries."""
    program = (
        "import sys\n"
        "from infrastructure.site import Site\n"
        "from infrastructure.storage import storage_of\n"
        f"settings = {{'storage': {{'strategy': 'sql', 'sql_strategy': {{'url': {url!r}}}}}}}\n"
        "storage = storage_of(Site('awsinst', '/', '/', ''), settings)\n"
        "model = storage.read_model()\n"
        "model.request('none'); model.holder_lives()\n"
        "storage.note((1.0, 'boot', 1.0), {'provider': 'p'}, model)\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "psycopg2" in loaded
    assert loaded.isdisjoint(LIBRARIES)
    assert "_sqlite3" not in loaded
