"""SSM's parameters: names and values, in versions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .wire import AwsError, numbered

_ARN = re.compile(r"arn:aws[a-z-]*:ssm:(?P<region>[^:]+):(?P<account>\d+):parameter/(?P<name>.+)")
# API_GetParameters.html
_NAMES_MAX = 10


class Parameters:
    """The parameters of one account in one region."""

    def __init__(self, account: str, region: str) -> None:
        self._account = account
        self._region = region
        # By name: the versions from 1 on, each with the time (seconds) it was put.
        self._values: dict[str, list[tuple[str, float]]] = {}

    def put(self, name: str, value: str, now: float) -> None:
        """Make a parameter, or a new version of it."""
        self._values.setdefault(name, []).append((value, now))

    def value(self, name: str) -> str:
        """The value of a parameter, asked for as GetParameter takes it. Raises AwsError."""
        return str(self._get(name)["Value"])

    def answer(self, action: str, params: Mapping[str, str]) -> dict[str, Any] | None:
        """What an action answers, None for one the sandbox lacks. Raises AwsError."""
        match action:
            case "GetParameter":
                return {"Parameter": self._get(params.get("Name", ""))}
            case "GetParameters":
                return self._get_all(numbered(params, "Names"))
        return None

    def _get_all(self, names: list[str]) -> dict[str, Any]:
        if not 1 <= len(names) <= _NAMES_MAX:
            raise AwsError("ValidationException", f"1 to {_NAMES_MAX} names a call.")
        found, missing = [], []
        for name in dict.fromkeys(names):
            try:
                found.append(self._get(name))
            except AwsError as error:
                if error.code == "ValidationException":
                    raise
                missing.append(name)
        # "The results ... are listed in alphabetical order", API_GetParameters.html.
        return {
            "Parameters": sorted(found, key=lambda one: str(one["Name"])),
            "InvalidParameters": missing,
        }

    def _get(self, asked: str) -> dict[str, Any]:
        """One parameter, by name or ARN, with `:version` or without."""
        wanted = asked.strip()
        if not wanted or " " in wanted:
            raise AwsError("ValidationException", "Parameter names contain no spaces.")
        name = wanted
        if arn := _ARN.fullmatch(wanted):
            if (arn["region"], arn["account"]) != (self._region, self._account):
                raise _not_found()
            # The name's own leading slash is the one that ends "parameter/".
            name = f"/{arn['name']}"
            if name.partition(":")[0] not in self._values:
                name = arn["name"]
        name, _, selector = name.partition(":")
        # AWS's own parameters (/aws/service/...) are asked for like one's own.
        versions = self._values.get(name)
        if versions is None:
            raise _not_found()
        number = len(versions)
        if selector:
            if not selector.isdigit() or not 1 <= int(selector) <= len(versions):
                message = f"Systems Manager could not find version {selector} of {name}."
                raise AwsError("ParameterVersionNotFound", message)
            number = int(selector)
        value, at = versions[number - 1]
        path = name if name.startswith("/") else f"/{name}"
        content = {
            "Name": name,
            "Type": "String",
            "Value": value,
            "Version": number,
            "LastModifiedDate": at,
            "ARN": f"arn:aws:ssm:{self._region}:{self._account}:parameter{path}",
            "DataType": "text",
        }
        return content | ({"Selector": f":{selector}"} if selector else {})


def _not_found() -> AwsError:
    # GetParameter's message is empty but for the type: from memory.
    return AwsError("ParameterNotFound", "The parameter couldn't be found.")
