"""The DynamoDB event store: one transaction a commit, each conditional on the head it was made for.

Nothing local is needed to append: a HostFactory command asks the tables. The worker and the
operator ask the mirror (`connection`), which follows before each look and after each own commit.
"""

from __future__ import annotations

import os
from hashlib import sha256

from application.crash_points import reach
from application.failures import (
    AlreadyTracked,
    Conflict,
    Fenced,
    LogDamaged,
    ProjectionFailed,
    StoreBusy,
    StoreElsewhere,
    StoreError,
)
from application.json_text import dumps, loads
from domain.deployment import Deployment
from infrastructure.event_store.commit import (
    AggregateStore,
    Rows,
    compose,
    is_damaged,
    project,
    to_event,
)
from infrastructure.event_store.dynamodb_client import (
    FIRST_PAUSE,
    LOG,
    LONGEST,
    LONGEST_PAUSE,
    MOST_ITEMS,
    TABLES,
    Cancelled,
    ConditionFailed,
    Lost,
    key,
    size_of,
)
from infrastructure.event_store.dynamodb_log import (
    BODIES,
    COMMANDS,
    HEAD,
    LEASES,
    TRANSACTION_BYTES,
    Head,
    commit_items,
    commit_key,
    events_in,
    last_commit,
    read_head,
    refuse_inert,
    refuse_moved,
    stream_commits,
    stream_key,
)
from infrastructure.event_store.dynamodb_rows import TableRows, counts_of, writes_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, TypeVar

    from application.ports import Clock
    from application.projections import Record
    from application.rebuilding import Change
    from domain.event_sourced import Aggregate, DomainEvent
    from infrastructure.event_store.commit import Pending
    from infrastructure.event_store.dynamodb_client import Item, Tables
    from infrastructure.event_store.dynamodb_mirror import Mirror, MirrorRows
    from infrastructure.event_store.dynamodb_rows import Write

    A = TypeVar("A", bound=Aggregate)

STAGED_BYTES = 350_000
"""Of read rows that wait in one item, before they are compressed."""

UNFIT = (LookupError, TypeError, ValueError, AttributeError)
"""What a row raises that no item takes."""


class DynamodbEventStore(AggregateStore):
    """The log of one deployment, with its read tables, open for writing.

    `directory` is where the mirror lies once it is asked for. `inert`: open a copy too. `head` is
    the log's when it was last looked at or written.
    """

    def __init__(
        self,
        tables: Tables,
        directory: str,
        clock: Clock,
        actor: dict[str, str],
        *,
        inert: bool = False,
        suffixes: Sequence[str] = TABLES,
    ) -> None:
        self.tables = tables
        self.name = tables.name
        self._directory = directory
        self._clock = clock
        self._actor = actor
        self._although_moved = False
        self._foreign = 1
        self._mirror: Mirror | None = None
        self.head = read_head(tables)
        if not inert:
            refuse_inert(tables, self.head, suffixes)
        self.deployment: str = self.head.facts["deployment"]

    @property
    def incarnation(self) -> int:
        return self.head.facts["incarnation"]  # type: ignore[no-any-return]

    def close(self) -> None:
        if self._mirror is not None:
            self._mirror.close()
            self._mirror = None

    # -- the mirror -------------------------------------------------------------------------------

    @property
    def connection(self) -> Any:
        """The mirror's, which is as new as the last `changes`, commit, or its opening."""
        return self.mirror().store.connection

    def mirror(self) -> Mirror:
        if self._mirror is None:
            from infrastructure.event_store.dynamodb_mirror import Mirror

            mirror = Mirror(self.tables, self._directory, self._clock, self.head)
            mirror.renew_failed()
            mirror.follow(read_head(self.tables))
            self._mirror = mirror
        return self._mirror

    def select_events(
        self, stream: str, after: int, to: int, descending: bool, limit: int
    ) -> list[tuple[int, str, str]]:
        """Version, topic and data text of a stream's events with after < version <= to."""
        from infrastructure.event_store.sql import select_events as statement_for

        statement = statement_for(descending)
        return self.connection.execute(  # type: ignore[no-any-return]
            statement, (stream, after, to, limit)
        ).fetchall()

    def reports(self) -> list[str]:
        """What a person should know of the store: nothing that a commit could leave here."""
        return []

    def changes(self) -> int:
        """A number that is another one when another process has written since; what it wrote is in
        the mirror then, and read rows that wait are written."""
        self.mirror()
        self._current()
        return self._foreign

    def write(self, name: str, work: Callable[[], Any]) -> Any:
        """Run `work` in one write transaction of the mirror: for the worker's notebook."""
        return self.mirror().store.write(name, work)

    # -- the head ---------------------------------------------------------------------------------

    def _current(self) -> Head:
        """The head as it is now: no rows wait, and the mirror, if open, has followed. Raises
        StoreElsewhere, StoreError."""
        head = read_head(self.tables)
        if head.facts["deployment"] != self.deployment:
            raise StoreError(f"{self.name} is another deployment's store now; nothing was recorded")
        if not self._although_moved:
            refuse_moved(self.tables, head)
        while head.pending:
            finish(self.tables, head)
            head = read_head(self.tables)
        if self._mirror is not None and self._mirror.follow(head):
            self._foreign += 1
        self.head = head
        return head

    def refuse_moved(self) -> None:
        """Raises StoreElsewhere once the store is sealed."""
        if not self._although_moved:
            refuse_moved(self.tables, read_head(self.tables))

    def insist(self) -> None:
        """Write here although the store was moved: an operator brings it back to life."""
        self._although_moved = True

    def refuse_failed_projections(self) -> None:
        """Raises ProjectionFailed, StoreElsewhere: what is decided on rows that stand still would
        be wrong."""
        head = read_head(self.tables)
        refuse_moved(self.tables, head)
        for name, position, error in head.facts["failed"]:
            raise ProjectionFailed(
                f"{self.name}: the read model {name} stopped at position {position} ({error}): "
                "nothing is decided on it until `hostledger projections rebuild`"
            )
        if self._mirror is not None:
            self._mirror.store.refuse_failed_projections()

    def change_head(self, change: Callable[[Head], None]) -> None:
        """Change the head alone, without an event."""
        bound = FIRST_PAUSE
        while True:
            before = read_head(self.tables)
            after = before.following()
            change(after)
            action = after.put(self.tables, before)
            try:
                self.tables.call("PutItem", **action)
                break
            except ConditionFailed as failed:
                if failed.doubtful and read_head(self.tables).facts == after.facts:
                    break
            self.tables.pause(bound)
            bound = min(2 * bound, LONGEST_PAUSE)
        self.head = after

    def seal(self, destination: str, reason: str) -> None:
        """End this store: its last event says that the history goes on at `destination`.

        Nothing can be written from the first of the two commits on; whoever is killed between them
        seals again. Raises StoreElsewhere when it was sealed for another destination.
        """

        def mark(head: Head) -> None:
            if head.facts["moved_to"] not in ("", destination):
                refuse_moved(self.tables, head)
            head.facts["moved_to"] = destination

        self.change_head(mark)
        self.insist()
        try:
            deployment = self.get(Deployment, "")
            assert deployment is not None
            if not deployment.moved_to:
                deployment.move(destination, reason)
                self.save(deployment, correlation_id="cmd-" + os.urandom(16).hex())
        finally:
            self._although_moved = False

    # -- writing ----------------------------------------------------------------------------------

    def append(
        self,
        records: Sequence[Pending],
        *,
        correlation_id: str = "",
        causation_id: str = "",
        causes: dict[str, tuple[str, str]] | None = None,
        command: tuple[str, str] | None = None,
        bodies: dict[str, bytes] | None = None,
        fence: tuple[str, int] | None = None,
        tracking: tuple[str, int] | None = None,
        positions: list[int] | None = None,
    ) -> list[str]:
        """As `SqlEventStore.append`. Raises Conflict, Fenced, AlreadyTracked, StoreError."""
        name = records[0][2] if records else "tracking"
        cause = (correlation_id, causation_id)

        def commit(head: Head) -> _Commit:
            if tracking is not None and head.facts["tracking"].get(tracking[0], -1) >= tracking[1]:
                raise AlreadyTracked(f"{tracking[0]} has passed position {tracking[1]}")
            rows = self._rows_at(head, records)
            self._refuse_taken(rows, records)
            self._check_last(head)
            ends = (head.pos, head.facts["chain"], head.facts["recorded_at"])
            events, followed = compose(
                records, ends, self._clock.now(), self._actor, cause, causes or {}
            )
            made = _Commit(self.tables, head, events, command, bodies or {})
            if tracking is not None:
                made.head.facts["tracking"][tracking[0]] = tracking[1]
            if fence is not None:
                made.check_fence(*fence)
            made.project(followed, rows)
            return made

        done = self._carry_out(name, commit)
        if positions is not None:
            positions.extend(event[0] for event in done.events)
        return [event[1] for event in done.events]

    def take_over(
        self,
        events: Sequence[Sequence[Any]],
        commands: Sequence[tuple[str, str, int]] = (),
        tracking: Sequence[tuple[str, int]] = (),
        bodies: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Continue the log with events (rows of COLUMNS) of another store of the same deployment,
        as they are, with (command id, result, position), (policy, position) and (digest, body).

        In several commits, as many as it takes. Raises LogDamaged unless they follow what is here.
        """
        from infrastructure.event_store.commit import decompose

        self.mirror()  # rows are asked of it

        for part in _parts(events):

            def commit(head: Head, part: Sequence[Sequence[Any]] = part) -> _Commit:
                position, previous = head.pos, head.facts["chain"]
                for row in part:
                    if row[0] != position + 1 or is_damaged(row, previous):
                        raise LogDamaged(
                            f"{self.name}: event {row[0]} of the source does not follow event "
                            f"{position} here: it was changed, or is of another log; nothing of "
                            "it was taken over"
                        )
                    position, previous = row[0], row[10]
                made = _Commit(self.tables, head, part, None, {})
                made.project([decompose(row) for row in part], self._rows_at(head, ()))
                return made

            self._carry_out("copy", commit)
        items: list[tuple[str, Item]] = [
            (LOG, _answer(command_id, result, position))
            for command_id, result, position in commands
        ]
        items += [(LOG, _body(digest, body)) for digest, body in bodies]
        self.tables.put_all(items)
        if tracking:
            self.change_head(lambda head: head.facts["tracking"].update(tracking))

    def exchange(
        self, rows: Callable[[], Iterable[Change]], projections: Callable[[], dict[str, int]]
    ) -> None:
        """As of SqlEventStore; meanwhile the projections are marked as failed. Raises
        StoreError."""
        from infrastructure.event_store.dynamodb_exchange import exchange

        exchange(self, rows, projections)

    def end(self) -> tuple[int, str]:
        """Position and chain of the last event; (0, "") for none."""
        head = read_head(self.tables)
        return (head.pos, head.facts["chain"]) if head.pos else (0, "")

    def _carry_out(self, name: str, commit: Callable[[Head], _Commit]) -> _Commit:
        """Make the commit for the head, send it, and again for the next head as long as another
        one came first."""
        began = self._clock.now()[2]
        bound = FIRST_PAUSE
        while True:
            head = self._current()
            made = commit(head)
            if self._mirror is not None and self._mirror.end()[0] != head.pos:
                continue  # another process of this machine took more of the log meanwhile
            made.stage()
            reach(f"commit.{name}.before")
            try:
                made.send()
                break
            except Cancelled as cancelled:
                if cancelled.doubtful and self._is_there(made):
                    break
                made.judge(cancelled.codes)
            except Lost:
                if self._is_there(made):
                    break
                raise
            if self._clock.now()[2] - began >= LONGEST:
                raise StoreBusy(
                    f"{self.name}: other commits came first for {LONGEST:.0f} s; nothing was "
                    "recorded: try again"
                )
            self.tables.pause(bound)
            bound = min(2 * bound, LONGEST_PAUSE)
        self.head = made.head
        reach(f"commit.{name}.after")
        try:
            if made.head.pending:
                finish(self.tables, made.head)
                self.head = read_head(self.tables)
            if self._mirror is not None:
                self._mirror.take(made.events, made.head)
        except StoreElsewhere:
            raise
        except StoreError:
            # It is recorded: whoever comes next writes the rows first, and the mirror follows.
            pass
        return made

    def _is_there(self, made: _Commit) -> bool:
        """Whether these very events are in the log, whatever became of the answer."""
        if not made.events:
            return False
        _, _, stream, version, *_ = made.events[0]
        item = self.tables.get(LOG, stream_key(stream), commit_key(version))
        return item is not None and events_in(item)[0][1] == made.events[0][1]

    def _rows_at(self, head: Head, records: Sequence[Pending]) -> TableRows | MirrorRows:
        """Rows and versions as of this head."""
        if self._mirror is None:
            rows = TableRows(self.tables)
            rows.prefetch(records)
            return rows
        from infrastructure.event_store.dynamodb_mirror import MirrorRows

        return MirrorRows(self._mirror)

    def _refuse_taken(self, rows: TableRows | MirrorRows, records: Sequence[Pending]) -> None:
        """Raises Conflict for a version that a stream has already."""
        first: dict[str, int] = {}
        taken = set()
        for stream, version, *_ in records:
            if (stream, version) in taken:
                raise Conflict(f"version {version} of {stream} twice in one commit")
            taken.add((stream, version))
            first.setdefault(stream, version)
        for stream, version in first.items():
            if isinstance(rows, TableRows):
                if version == 1:
                    continue  # it would be the first commit's key, which must not be there
                item = last_commit(self.tables, stream)
                last = -1 if item is None else events_in(item)[-1][3]
            else:
                last = rows.version(stream)
            if last >= version:
                raise Conflict(f"{stream} is at version {last}, {version} was to come")

    def _check_last(self, head: Head) -> None:
        """Raises LogDamaged unless the last event is what its digest and the chain say."""
        if not head.pos:
            return
        stream, first, before = head.facts["last"]
        item = self.tables.get(LOG, stream_key(stream), commit_key(first))
        last = events_in(item)[-1] if item else [0]
        if last[0] != head.pos or last[10] != head.facts["chain"] or is_damaged(last, before):
            raise LogDamaged(
                f"{self.name}: the log was changed at or after position {head.pos}; nothing is "
                "appended to it: compare it with a backup"
            )

    # -- reading ----------------------------------------------------------------------------------

    def get(self, aggregate_class: type[A], identifier: str, *, from_log: bool = True) -> A | None:
        """The thing with this id as its events tell it, always; None when the log has none."""
        stream = aggregate_class.stream(identifier)
        return aggregate_class.project(None, self.events_of(stream))

    def events_of(self, stream: str) -> Iterator[DomainEvent]:
        """The domain events of a stream in their order, brought up to today's class versions."""
        for item in stream_commits(self.tables, stream):
            for row in events_in(item):
                yield to_event(stream, row[3], row[4], row[5], row[8])

    def command_result(self, command_id: str) -> str | None:
        """What was answered to a command of this id; None when there was none."""
        item = self.tables.get(LOG, COMMANDS, command_id)
        return item["result"]["S"] if item else None


def _answer(command_id: str, result: str, position: int) -> Item:
    return {
        **key(COMMANDS, command_id),
        "result": {"S": result},
        "position": {"N": str(position)},
    }


def _body(digest: str, body: bytes) -> Item:
    return {**key(BODIES, digest), "body": {"B": body}}


PART_STREAMS, PART_EVENTS = 30, 200


def _parts(events: Sequence[Sequence[Any]]) -> Iterator[Sequence[Sequence[Any]]]:
    """Runs of events that fit one commit."""
    part: list[Sequence[Any]] = []
    streams: set[str] = set()
    size = 0
    for row in events:
        if part and (
            len(streams | {row[2]}) > PART_STREAMS
            or len(part) >= PART_EVENTS
            or size + len(row[8]) > 1_000_000
        ):
            yield part
            part, streams, size = [], set(), 0
        part.append(row)
        streams.add(row[2])
        size += len(row[8])
    if part:
        yield part


class DynamodbCopy(DynamodbEventStore):
    """A store that takes over another's log: `take_over` commits as often as it needs."""

    def write(self, name: str, work: Callable[[], Any]) -> Any:
        return work()


class _Commit:
    """The transaction of one commit, for one head."""

    def __init__(
        self,
        tables: Tables,
        before: Head,
        events: Sequence[Sequence[Any]],
        command: tuple[str, str] | None,
        bodies: dict[str, bytes],
    ) -> None:
        self._tables = tables
        self._before = before
        self.events = events
        self._command = command
        self.head = before.following()
        self._kinds = ["head"]
        self._actions: list[dict[str, Any]] = [{}]
        self._size = 8192
        self._writes: dict[tuple[str, str, str], Write] = {}
        facts = self.head.facts
        if events:
            last = events[-1]
            first = next(row[3] for row in events if row[2] == last[2])
            earlier = events[-2][10] if len(events) > 1 else facts["chain"]
            # The commit's item of that stream ends with the last event.
            facts["last"] = [last[2], first, earlier]
            facts["chain"], facts["recorded_at"] = last[10], last[6]
            self.head.pos = last[0]
            log, *parts = commit_items(tables, events)
            self._put("log", log, once=True)
            for part in parts:
                self._put("commit", part, once=True)
        if command is not None:
            self._put("command", _answer(*command, self.head.pos), once=True)
        for digest, body in bodies.items():
            self._put("body", _body(digest, body))

    def _put(self, kind: str, item: Item, *, once: bool = False) -> None:
        action = {"TableName": self._tables.table(LOG), "Item": item}
        if once:
            action["ConditionExpression"] = "attribute_not_exists(PK)"
        self._kinds.append(kind)
        self._actions.append({"Put": action})
        self._size += size_of(item)

    def check_fence(self, account: str, number: int) -> None:
        """It is cancelled unless this is the holder's number."""
        self._account = account
        self._kinds.append("fence")
        self._actions.append(
            {
                "ConditionCheck": {
                    "TableName": self._tables.table(LOG),
                    "Key": key(LEASES, account),
                    "ConditionExpression": "fence = :fence",
                    "ExpressionAttributeValues": {":fence": {"N": str(number)}},
                }
            }
        )

    def project(self, records: Sequence[Record], source: TableRows | MirrorRows) -> None:
        """Let the read models follow. What no item takes stops its projection alone."""
        facts = self.head.facts
        failed = {name for name, _, _ in facts["failed"]}
        rows = Rows(source.row)
        errors = project(records, rows, failed)
        for name in rows.writers():
            counts = dict(facts["counts"])
            writes: list[Write] = []
            brake = facts["brake"]
            try:
                for table, row in rows.take(name):
                    old = source.row(table, tuple(row[column] for column in Rows.KEYS[table]))
                    machine = None
                    if table == "returned_machines" and row["ours"]:
                        machine = source.row("machines", (row["machine_id"],))
                    writes += writes_of(table, old, row, machine)
                    before = counts_of(table, old)
                    for counted, number in counts_of(table, row).items():
                        change = number - before.get(counted, 0)
                        # An earlier release did not count all that this one does.
                        counts[counted] = max(0, counts.get(counted, 0) + change)
                    if table == "brake":
                        brake = [row["scope"], row["reason"]] if row["scope"] else None
            except UNFIT as error:
                errors[name] = (records[-1].position, f"{type(error).__name__}: {error}")
                continue
            facts["counts"], facts["brake"] = counts, brake
            for write in writes:
                suffix, item, _ = write
                self._writes[suffix, item["PK"]["S"], item["SK"]["S"]] = write
        facts["failed"] += [[name, *why] for name, why in errors.items()]

    def stage(self) -> None:
        """Where the rows do not fit the transaction, put them aside before it."""
        size = self._size + sum(size_of(item) for _, item, _ in self._writes.values())
        if len(self._actions) > MOST_ITEMS or self._size > TRANSACTION_BYTES:
            raise StoreError(
                f"{self._tables.name}: a commit of {len(self._actions)} items and {self._size} "
                f"bytes is more than a transaction takes ({MOST_ITEMS} and 4 MB); nothing was "
                "recorded: ask for less at once"
            )
        if len(self._actions) + len(self._writes) <= MOST_ITEMS and size <= TRANSACTION_BYTES:
            for write in self._writes.values():
                self._kinds.append("row")
                self._actions.append(_action(self._tables, write))
            return
        name = f"{self.head.pos:012d}#{self._tables.random(8).hex()}"
        chunks = 0
        chunk: list[str] = []
        held = 0
        for text in [*(dumps(_as_json(write)) for write in self._writes.values()), ""]:
            if chunk and (not text or held + len(text) > STAGED_BYTES):
                import zlib

                packed = zlib.compress(f"[{','.join(chunk)}]".encode(), 6)
                item = {**key("W#" + name, f"{chunks:06d}"), "writes": {"B": packed}}
                self._tables.put(LOG, item)
                chunks += 1
                chunk, held = [], 0
            chunk.append(text)
            held += len(text)
        self.head.pending = {"id": name, "chunks": chunks, "rows": len(self._writes)}

    def send(self) -> None:
        """Carry it out, under a token that the same bytes have and no others. Raises Cancelled,
        Lost, StoreError."""
        self._actions[0] = {"Put": self.head.put(self._tables, self._before)}
        token = sha256(repr(self._actions).encode()).hexdigest()
        self._tables.transact(self._actions, token)

    def judge(self, codes: Sequence[str]) -> None:
        """Raises what a cancelled commit means; nothing where another head may do."""
        failed = {
            kind
            for kind, code in zip(self._kinds, codes, strict=False)
            if code == "ConditionalCheckFailed"
        }
        if "fence" in failed:
            raise Fenced(f"the lease of {self._account} is another worker's now")
        if "command" in failed:
            assert self._command is not None
            raise Conflict(f"the command {self._command[0]} has been carried out")
        if "commit" in failed:
            raise Conflict("another commit wrote these versions first")
        if "head" in failed:
            return
        if "log" in failed:
            raise LogDamaged(
                f"{self._tables.name}: the log has an event {self._before.pos + 1} and its head "
                f"says {self._before.pos}: the head was changed; compare it with a backup"
            )
        if "TransactionConflict" not in codes:
            raise StoreError(f"{self._tables.name}: {', '.join(codes)}; nothing was recorded")


def _as_json(write: Write) -> list[Any]:
    from base64 import b64encode

    suffix, item, put = write
    plain = {
        name: {"B": b64encode(value["B"]).decode()} if "B" in value else value
        for name, value in item.items()
    }
    return [suffix, plain, put]


def _from_json(value: list[Any]) -> Write:
    from base64 import b64decode

    suffix, item, put = value
    for name, attribute in item.items():
        if "B" in attribute:
            item[name] = {"B": b64decode(attribute["B"])}
    return suffix, item, put


def _action(tables: Tables, write: Write) -> dict[str, Any]:
    suffix, item, put = write
    if put:
        return {"Put": {"TableName": tables.table(suffix), "Item": item}}
    return {"Delete": {"TableName": tables.table(suffix), "Key": item}}


def finish(tables: Tables, head: Head) -> None:
    """Write the read rows that wait for the head's last commit, whoever made it. Raises StoreError.

    Each transaction is good only while they wait: who was paused in between cannot write old rows
    over new ones.
    """
    import zlib

    assert head.pending is not None
    name = head.pending["id"]
    condition = {
        "TableName": tables.table(LOG),
        "Key": key(HEAD),
        "ConditionExpression": "pending = :pending",
        "ExpressionAttributeValues": {":pending": {"S": dumps(head.pending)}},
    }
    chunks = 0
    number = 0
    for chunk in tables.query(LOG, "W#" + name):
        chunks += 1
        writes = [_from_json(one) for one in loads(zlib.decompress(chunk["writes"]["B"]).decode())]
        while writes:
            count, size = 0, 0
            while count < min(len(writes), MOST_ITEMS - 1) and size < TRANSACTION_BYTES - 400_000:
                size += size_of(writes[count][1])
                count += 1
            actions = [{"ConditionCheck": condition}]
            actions += [_action(tables, write) for write in writes[:count]]
            del writes[:count]
            token = sha256(f"{name} {number}".encode()).hexdigest()
            number += 1
            try:
                tables.transact(actions, token)
            except Cancelled as cancelled:
                if cancelled.codes[:1] == ["ConditionalCheckFailed"]:
                    return  # another process was faster
                raise StoreError(f"{tables.name}: {', '.join(cancelled.codes)}") from None
    if chunks < head.pending["chunks"]:
        if read_head(tables).pending == head.pending:
            raise LogDamaged(
                f"{tables.name}: read rows of position {head.pos} wait and are not there: restore "
                "the tables to a time before"
            )
        return
    try:
        _drop_pending(tables, condition)
    except ConditionFailed:
        return
    tables.delete_all([(LOG, "W#" + name, f"{number:06d}") for number in range(chunks)])


def _drop_pending(tables: Tables, condition: dict[str, Any]) -> None:
    values = {**condition["ExpressionAttributeValues"], ":one": {"N": "1"}}
    tables.call(
        "UpdateItem",
        **{**condition, "ExpressionAttributeValues": values},
        UpdateExpression="SET rev = rev + :one REMOVE pending",
    )
