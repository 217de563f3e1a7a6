"""The read models that change in the same commit as the events: events in, rows out.

Each projection is a table of handlers by topic. A handler reads and writes rows through `rows`
(`get(table, *key)`, `put(table, row)`), and nothing else: what it writes depends on the events
alone, so a rebuild comes out equal.
"""

from __future__ import annotations

from application.projections import brake, launches, machines, requests, templates
from application.projections.record import Record, Rows

__all__ = ["FRAGMENTS", "PROJECTIONS", "TABLES", "VERSIONS", "Record", "Rows"]

PROJECTIONS = {
    "templates": templates.HANDLERS,
    "requests": requests.HANDLERS,
    "launches": launches.HANDLERS,
    "brake": brake.HANDLERS,
    # Last: it looks at the requests' rows.
    "machines": machines.HANDLERS,
}

VERSIONS = {"templates": 1, "requests": 1, "launches": 1, "brake": 1, "machines": 1}
"""Raise one with every change of what its handlers make of an event: the store's rows are then
built anew."""

FRAGMENTS = {"machines": machines.write_fragments}
"""What writes the finished fragments of a table's row in which a handler has left `fragment` None:
once, when it is stored, however many events have changed it."""

TABLES = {
    "templates": ("templates", "template_revisions"),
    "requests": ("requests", "returned_machines"),
    "launches": ("batches", "terminations", "fleets", "launch_templates"),
    "brake": ("brake",),
    "machines": ("machines",),
}
"""The tables that each writes."""
