"""The ways in which a store or a configuration cannot be used, for whoever has to tell it.

`str()` of each names the thing, the cause and the next step, but for Conflict, Fenced and
AlreadyTracked, which are for code.
"""

from __future__ import annotations


class NotConfigured(Exception):
    """A place that must be known is not: which variables would say it."""


class BrokenConfiguration(Exception):
    """The site's files cannot be used and no good form of them is left."""


class NotInstalled(Exception):
    """What is asked for needs an extra of the package: which one."""


class StoreError(Exception):
    """The store cannot be used."""


class StoreMissing(StoreError):
    """There is no store where one should be."""


class StoreInert(StoreError):
    """The store is a copy that nobody activated."""


class StoreElsewhere(StoreInert):
    """The store was sealed: the history goes on in another one, at `destination` (a `place`)."""

    def __init__(self, name: str, destination: str) -> None:
        super().__init__(
            f"{name} was moved to {destination}: nothing is recorded here any more; set "
            "storage.url to the new place"
        )


class StoreBusy(StoreError):
    """Another process held the store for too long."""


class StoreNewer(StoreError):
    """The store's schema is of another release."""


class LogDamaged(StoreError):
    """The end of the log does not match its own digest or chain."""


class UnknownEvent(StoreError):
    """The log holds an event that this release does not know."""


class NoMoment(StoreError):
    """What is to be seen as of a moment is asked for one that the log does not have."""


class EventsArchivedAway(StoreError):
    """What is asked for was taken out of the store: which archive has it."""


class ExportDamaged(StoreError):
    """A file that was exported or archived is not what was written: which line, and why."""


class ProjectionFailed(StoreError):
    """A read model could not follow the log and must be rebuilt."""


class Conflict(Exception):
    """Someone else wrote this version of the stream first, or this command has been carried out."""


class Fenced(Exception):
    """The lease was lost: the fencing number of this commit is not the holder's."""


class AlreadyTracked(Exception):
    """Another worker has processed this position already."""


def archived_away(what: str, files: list[str]) -> EventsArchivedAway:
    """What is said of an event or a stream that is in one of these archives."""
    named = f" ({', '.join(files[-3:])})" if files else ""
    return EventsArchivedAway(
        f"{what} was archived and is no longer in the store: give the archive that has it"
        f"{named} with --archive"
    )
