"""The site's list of prices: a JSON file that says what machines cost, who says so, and when."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from application.reports import Listed, Price
from infrastructure.configuration import ConfigurationProblem, read_document

Word = Annotated[str, Field(min_length=1)]
Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]

NEXT = "correct it, or take the entry out: its machines are then of unknown price"


class _Origin(BaseModel):
    model_config = ConfigDict(extra="forbid")

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None = None
    source: Word | None = None
    date: Day | None = None


class _Entry(_Origin):
    instance_type: Word
    price_type: Literal["ondemand", "spot"]
    region: Word
    per_hour: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _List(_Origin):
    prices: list[_Entry]


def read_prices(path: str) -> Listed:
    """What a file lists. An entry's own currency, source and date count before those of the list.

    Raises ConfigurationProblem.
    """
    document, _ = read_document(path, comments=True)
    try:
        listed = _List.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigurationProblem(path, key, first["msg"], NEXT) from None
    found: dict[tuple[str, str, str], Price] = {}
    for number, entry in enumerate(listed.prices):
        key = f"prices.{number}"
        said = {
            name: getattr(entry, name) or getattr(listed, name)
            for name in ("currency", "source", "date")
        }
        missing = [name for name, value in said.items() if not value]
        if missing:
            problem = f"neither it nor the list has a {missing[0]}"
            raise ConfigurationProblem(path, key, problem, "give the list one")
        _refuse_no_day(path, key, said["date"])
        what = (entry.instance_type, entry.price_type, entry.region)
        if what in found:
            problem = f"{' '.join(what)} has a price already"
            raise ConfigurationProblem(path, key, problem, "take one of them out")
        found[what] = Price(entry.per_hour, **said)
    return found


def _refuse_no_day(path: str, key: str, day: str) -> None:
    try:
        date.fromisoformat(day)
    except ValueError as error:
        raise ConfigurationProblem(path, key, f"date {day}: {error}", "correct it") from None
