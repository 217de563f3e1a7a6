"""What proves the ledger, what may be taken out of it, and what is reported of it."""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from infrastructure.settings.kinds import Path, Section, Text, Whole, list_from_variable


def _checkpoint_place(place: str | None) -> str | None:
    if place is None or place.startswith("/") or re.match(r"s3://[a-z0-9][a-z0-9.-]+(/|$)", place):
        return place
    raise ValueError("an absolute path or s3://BUCKET/PREFIX is needed")


CheckpointPlace = Annotated[Text, AfterValidator(_checkpoint_place)]


class Audit(Section):
    """What proves that the ledger was not changed."""

    checkpoint_to: CheckpointPlace = None
    """Where the worker keeps a signed checkpoint of the log each hour in which events came: a file
    to append to, a directory (a file for the deployment in it), or `s3://BUCKET/PREFIX`, best with
    object lock. None: none are taken."""
    checkpoint_key: Path = None
    """A file, an absolute path, with the secret that signs checkpoints, of at least 32 bytes. None:
    there is none, and without one no checkpoint is taken."""


class Retention(Section):
    """What `hostledger store archive` may take out of the live store."""

    days: Annotated[Whole, Field(ge=0, le=36_500)] = 0
    """Days that requests, returns, launches, terminations and machines stay in the live store after
    their end, until `hostledger store archive` takes them out. 0: for ever."""
    legal_hold: Annotated[list[Text], BeforeValidator(list_from_variable)] = []
    """Ids of requests, returns, machines, batches or templates, or patterns of them (`req-0f8f*`):
    they and all that belongs to them stay, whatever their age. In the environment a JSON list."""


class Reports(Section):
    """What `hostledger report` needs to know besides the ledger."""

    prices: Path = None
    """A JSON file of prices by instance type, price type and region, an absolute path. None: what
    templates say of prices is all that is known."""
