"""What settings are made of: kinds of values, sections of keys, and what is said of keys that
clash."""

import json
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


def _refuse_switch(value: object) -> object:
    if not isinstance(value, bool):
        return value
    raise ValueError("a number is needed")  # else pydantic takes true for 1


def blank_is_none(value: object) -> object:
    """A blank text says that there is none."""
    return None if isinstance(value, str) and not value.strip() else value


def _absolute(path: str | None) -> str | None:
    if path is not None and not path.startswith("/"):
        raise ValueError("an absolute path is needed: HostFactory's working directory is unknown")
    return path


def _region(region: str | None) -> str | None:
    if region is None:
        return None
    zone = re.fullmatch(r"([a-z]{2}(?:-[a-z]+)+-\d+)[a-z]", region)
    if zone:
        raise ValueError(f"this is an availability zone; its region is {zone[1]}")
    if not re.fullmatch(r"[a-z0-9-]{1,64}", region):
        raise ValueError("a region code such as us-west-2 is needed")
    return region


def _endpoint(url: str | None) -> str | None:
    if url is None:
        return None
    if "://" not in url:
        url = f"https://{url}"  # IBM's files name hosts without a scheme
    if not is_address(url):
        raise ValueError("a URL such as https://ec2.us-west-2.amazonaws.com is needed")
    return url


def is_address(url: str) -> bool:
    """Whether it is a whole http or https URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # a port that is no number, half a bracket
        return False
    usable = parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
    return usable and not re.search(r"\s", url)


def _from_json(value: object, kind: str) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError(f"a JSON {kind} is needed") from None


def from_variable(value: object) -> object:
    """An object of which the keys are the site's own is one variable, as JSON."""
    return _from_json(value, "object")


def list_from_variable(value: object) -> object:
    """A list is one variable too."""
    return _from_json(value, "list")


Whole = Annotated[int, BeforeValidator(_refuse_switch)]
Number = Annotated[float, BeforeValidator(_refuse_switch)]
Seconds = Annotated[Number, Field(gt=0, le=31_536_000, allow_inf_nan=False)]
SecondsOrZero = Annotated[Number, Field(ge=0, le=31_536_000, allow_inf_nan=False)]
Count = Annotated[Whole, Field(ge=1)]
CountOrZero = Annotated[Whole, Field(ge=0)]
OfThousand = Annotated[Whole, Field(ge=1, le=1000)]
Rate = Annotated[Number, Field(gt=0, allow_inf_nan=False)]
Text = Annotated[str | None, BeforeValidator(blank_is_none)]
Region = Annotated[Text, AfterValidator(_region)]
Endpoint = Annotated[Text, AfterValidator(_endpoint)]
Path = Annotated[str | None, BeforeValidator(blank_is_none), AfterValidator(_absolute)]


class Section(BaseModel):
    """Keys that belong together; no other may stand among them."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def clash(problem: str, next_step: str, *keys: str) -> PydanticCustomError:
    """Keys that do not go together. It is said of the first of them that was given."""
    context = {"problem": problem, "next_step": next_step, "keys": keys}
    return PydanticCustomError("clash", "{problem}", context)
