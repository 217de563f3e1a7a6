"""The read models that change in the same commit as the events: events in, rows out.

Each projection is a table of handlers by topic. A handler reads and writes rows through `rows`
(`get(table, *key)`, `put(table, row)`), and nothing else: what it writes depends on the events
alone, so a rebuild comes out equal.
"""

from __future__ import annotations

from application.projections import brake, launches, machines, requests, templates
from application.projections.record import Record, Rows

__all__ = ["PROJECTIONS", "Record", "Rows"]

PROJECTIONS = {
    "templates": templates.HANDLERS,
    "requests": requests.HANDLERS,
    "launches": launches.HANDLERS,
    "brake": brake.HANDLERS,
    # Last: it looks at the requests' rows.
    "machines": machines.HANDLERS,
}
