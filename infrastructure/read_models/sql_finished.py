"""Which streams are over and may be archived: nothing that is open or alive needs them any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from application.json_text import dumps

OPEN_BATCHES = """
SELECT b.batch_id FROM batches b WHERE b.state IN ('open', 'doubtful', 'filling')
UNION SELECT f.batch_id FROM fleets f WHERE f.state <> 'deleted'
"""
CLAIMING = f"""
SELECT b.correlation_id FROM batches b WHERE b.batch_id IN ({OPEN_BATCHES})
UNION SELECT json_extract(c.value, '$[0]') FROM batches b, json_each(b.claims) c
WHERE b.batch_id IN ({OPEN_BATCHES})
"""
# What a batch that is not over may still be dealt to.

MACHINES = f"""
SELECT 'machine' AS kind, m.machine_id AS id FROM machines m
WHERE m.alive = 0 AND m.updated_at < ? AND m.batch_id NOT IN ({OPEN_BATCHES})
AND NOT EXISTS (SELECT 1 FROM requests r
    WHERE r.request_id IN (m.request_id, m.return_id) AND r.final = 0)
"""
REQUESTS = f"""
SELECT r.kind, r.request_id AS id FROM requests r
WHERE r.final = 1 AND r.final_at < ? AND r.request_id NOT IN ({CLAIMING})
AND NOT EXISTS (SELECT 1 FROM machines m WHERE m.request_id = r.request_id AND m.alive = 1)
AND NOT EXISTS (SELECT 1 FROM returned_machines i JOIN machines m
    ON i.ours = 1 AND m.machine_id = i.machine_id
    WHERE i.return_id = r.request_id AND m.alive = 1)
"""
BATCHES = f"""
SELECT 'batch' AS kind, b.batch_id AS id FROM batches b
WHERE b.updated_at < ? AND b.batch_id NOT IN ({OPEN_BATCHES})
AND NOT EXISTS (SELECT 1 FROM machines m WHERE m.batch_id = b.batch_id AND m.alive = 1)
AND NOT EXISTS (SELECT 1 FROM json_each(b.claims) c JOIN requests r
    ON r.request_id = json_extract(c.value, '$[0]') WHERE r.final = 0)
AND NOT EXISTS (SELECT 1 FROM events e WHERE e.stream = 'batch-' || b.batch_id
    AND e.topic IN ('LaunchAccepted', 'LaunchRejected', 'LaunchSettled', 'LaunchClosed')
    AND e.position > (SELECT coalesce(max(position), 0) FROM tracking WHERE name = 'assigning'))
"""
TERMINATIONS = """
SELECT 'termination' AS kind, t.termination_id AS id FROM terminations t
WHERE t.state <> 'open' AND t.updated_at < ?
AND NOT EXISTS (SELECT 1 FROM json_each(t.machine_ids) i JOIN machines m
    ON m.machine_id = i.value WHERE m.alive = 1)
"""
# A fleet's stream is not among them, nor a launch template's: AWS may list the one for days after
# its end, and the other's name comes again.

TIES = "SELECT machine_id, request_id, return_id, batch_id, template_id FROM machines"
NAMED = """
SELECT 'return-' || i.return_id AS stream, i.machine_id AS named FROM returned_machines i
UNION ALL SELECT 'termination-' || t.termination_id, i.value
FROM terminations t, json_each(t.machine_ids) i
UNION ALL SELECT 'batch-' || b.batch_id, json_extract(c.value, '$[0]')
FROM batches b, json_each(b.claims) c
UNION ALL SELECT 'batch-' || b.batch_id, b.template_id FROM batches b
UNION ALL SELECT 'request-' || r.request_id, r.template_id FROM requests r
"""
"""What a stream's events name, beside its own id."""

WHOLE = """
SELECT e.stream FROM json_each(?) j JOIN events e ON e.stream = j.value AND e.version = 1
WHERE e.topic <> '' ORDER BY e.position
"""

Rows = Callable[..., list[dict[str, Any]]]


def finished(rows: Rows, before: str, legal_hold: Sequence[str]) -> tuple[list[str], int]:
    """The streams that were over at this time (ISO 8601 as stored) and are not archived yet, and
    how many more the legal hold (ids, or patterns as a shell has them) keeps. `rows` asks the
    store.

    A hold on anything is on the machines that belong to it, and on all that these belong to.
    """
    over = [
        f"{row['kind']}-{row['id']}"
        for statement in (MACHINES, REQUESTS, BATCHES, TERMINATIONS)
        for row in rows(statement, (before,))
    ]
    streams = [row["stream"] for row in rows(WHOLE, (dumps(over),))]
    if not legal_hold:
        return streams, 0
    is_held = _holding(rows, legal_hold)
    free = [stream for stream in streams if not is_held(stream)]
    return free, len(streams) - len(free)


def _holding(rows: Rows, legal_hold: Sequence[str]) -> Callable[[str], bool]:
    """Whether a stream is held."""

    def matches(identifier: str) -> bool:
        return any(fnmatchcase(identifier, pattern) for pattern in legal_hold)

    named = [(row["stream"], row["named"]) for row in rows(NAMED)]
    ids = {name for stream, name in named if matches(stream.partition("-")[2])}
    for row in rows(TIES):
        if row["machine_id"] in ids or any(matches(name) for name in row.values() if name):
            ids |= {row["machine_id"], row["request_id"], row["return_id"], row["batch_id"]}
    ids.discard("")
    streams = {stream for stream, name in named if name in ids or matches(name)}

    def is_held(stream: str) -> bool:
        identifier = stream.partition("-")[2]
        return stream in streams or identifier in ids or matches(identifier)

    return is_held
