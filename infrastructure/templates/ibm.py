"""IBM's `awsprov_templates.json` as validated template documents, one form for each."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from infrastructure.configuration import ConfigurationProblem, read_document
from infrastructure.templates.attributes import Facts, complete, weights_of
from infrastructure.templates.combinations import idle, refusals
from infrastructure.templates.content import content_of
from infrastructure.templates.fields import Fields, names
from infrastructure.templates.problems import Refused, TemplateProblem, shown
from infrastructure.templates.values import ids, is_absent

__all__ = [
    "Known",
    "TemplateProblem",
    "read_templates",
    "revision",
    "types_named",
    "wire_template",
]

_KNOWN = set(names())
_KINDS = {"ondemand": "an on-demand", "spot": "a spot", "heterogeneous": "a heterogeneous"}


class Known(NamedTuple):
    """What is known beside the file: instance types, and the names of the site's accounts (None:
    they are not)."""

    facts: Facts = {}
    accounts: Collection[str] | None = None


class _Reading:
    """One entry of a file on its way to a document, and what is found wrong with it."""

    def __init__(self, path: str, number: int, known: Known) -> None:
        self.path = path
        self.known = known
        self.name = f"number {number}"
        self.problems: list[TemplateProblem] = []

    def note(self, field: str, problem: str, *, fatal: bool = False) -> None:
        self.problems.append(TemplateProblem(self.path, self.name, field, problem, fatal))

    def read(self, entry: object, files: dict[str, Any]) -> dict[str, Any] | None:
        """The document; None when the template is left out."""
        if not isinstance(entry, dict):
            self.note("templates", f"an object is needed, not {shown(entry)}", fatal=True)
            return None
        try:
            return self._document(entry, files)
        except Refused as refused:
            self.note(refused.field, refused.problem, fatal=True)
        except ValidationError as error:
            for detail in error.errors():
                self.note(*_field_and_problem(detail), fatal=True)
        return None

    def _document(self, entry: dict[str, Any], files: dict[str, Any]) -> dict[str, Any] | None:
        given = self._names_put_right(entry)
        fields = Fields.model_validate(given)
        content, notes = content_of(fields, given, os.path.dirname(self.path), files)
        for note in notes:
            self.note(*note)
        self._check_accounts(content)
        found = list(refusals(content, given))
        for refusal in found:
            self.note(*refusal, fatal=True)
        if found:
            return None
        unused = idle(content, given)
        if unused:
            kind = _KINDS[content["price_type"]]
            self.note(", ".join(unused), f"without effect on {kind} template")
        attributes, differences = complete(fields.attributes, content, self.known.facts)
        for difference in differences:
            self.note(*difference)
        first = {name: content.pop(name) for name in ("template_id", "max_number")}
        return {**first, "attributes": attributes, **content}

    def _check_accounts(self, content: Mapping[str, Any]) -> None:
        named, known = content.get("accounts"), self.known.accounts
        if not named or known is None:
            return
        strange = [name for name in named if name not in known]
        if len(strange) == len(named):
            raise Refused("accounts", "none of them is an account of the configuration")
        if strange:
            self.note("accounts", f"{', '.join(strange)}: no account of the configuration")

    def _names_put_right(self, entry: dict[str, Any]) -> dict[str, Any]:
        """What the template says, without what is left empty, by the names of the reference."""
        given = {
            key: value
            for key, value in entry.items()
            if not is_absent(value.strip() if isinstance(value, str) else value)
        }
        respelled = _template_id_by_any_case(given)
        if isinstance(given.get("templateId"), str):
            self.name = given["templateId"]
        if respelled:
            self.note(respelled, "is read as templateId; spell it so")
        snake = {key for key in entry if "_" in key and to_camel(key) in _KNOWN} - {respelled}
        unknown = sorted(set(entry) - _KNOWN - snake - {respelled})
        if unknown:
            self.note(", ".join(unknown), f"unknown, ignored{_hint(unknown)}")
        for key in sorted(snake & given.keys()):
            if to_camel(key) in given:
                raise Refused(key, f"give {to_camel(key)} or {key}, not both")
            given[to_camel(key)] = given.pop(key)
        return given


def _template_id_by_any_case(fields: dict[str, Any]) -> str | None:
    """Puts `templateID` and the like right; the name that was found, None if it was right."""
    if "templateId" in fields:
        return None
    for name in fields:
        if name.replace("_", "").lower() == "templateid":
            fields["templateId"] = fields.pop(name)
            return name
    return None


def _field_and_problem(error: ErrorDetails) -> tuple[str, str]:
    context = error.get("ctx", {})
    if "field" in context:
        return str(context["field"]), str(context["problem"])
    field = _place(error["loc"])
    if error["type"] == "missing":
        return field, "is required"
    if error["type"] == "extra_forbidden":
        return field, "is no field of it"
    problem = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    # User data may hold secrets, and this text goes to logs.
    return field, problem if field == "userData" else f"{problem}, not {shown(error['input'])}"


def _place(location: tuple[int | str, ...]) -> str:
    """Where a problem is, by the names of the file: an object in a list by its number (from 1),
    a plain list as a whole."""
    words: list[str] = []
    for index, part in enumerate(location):
        if isinstance(part, str) and not part.startswith(("[", "dict", "constrained-")):
            words.append(part)
        elif isinstance(part, int) and index + 1 < len(location):
            words.append(str(part + 1))
    return ".".join(words)


def _hint(unknown: list[str]) -> str:
    for name in unknown:
        near = difflib.get_close_matches(name, sorted(_KNOWN), n=1, cutoff=0.8)
        if near:
            return f"; is {name} meant to be {near[0]}?"
    return ""


# --- the file -------------------------------------------------------------------------------


def _entries(path: str) -> tuple[list[Any], list[str]]:
    """The file's templates as they are, and the keys that are given twice in it."""
    content, twice = read_document(path)
    templates = content.get("templates")
    if not isinstance(templates, list):
        problem = 'a list of templates is needed, {"templates": [...]}'
        raise ConfigurationProblem(path, "templates", problem, "give the file that list")
    return templates, twice


def read_templates(
    path: str, known: Known | None = None, files: dict[str, Any] | None = None
) -> tuple[list[dict[str, Any]], list[TemplateProblem]]:
    """The template documents of a file, in its order, and what is wrong with the others.

    `files` is given the paths of further files that templates name, each with its facts
    (`infrastructure.compiled`). A template that is wrong, or could not be launched, is left out
    with a fatal problem; no document is ever half of what its file says. Raises
    ConfigurationProblem when the file itself cannot be read.
    """
    templates, twice = _entries(path)
    documents: list[dict[str, Any]] = []
    problems = [
        TemplateProblem(path, "any", key, "given twice in one object, the last counts", fatal=False)
        for key in dict.fromkeys(twice)
    ]
    seen: set[str] = set()
    further: dict[str, Any] = {} if files is None else files
    for number, entry in enumerate(templates, start=1):
        reading = _Reading(path, number, known or Known())
        document = reading.read(entry, further)
        if reading.name in seen:
            problem = "another template has this id, and the first one counts"
            problems.append(TemplateProblem(path, reading.name, "templateId", problem, fatal=True))
            continue
        seen.add(reading.name)
        problems += reading.problems
        if document is not None:
            documents.append(document)
    return documents, problems


def types_named(path: str) -> list[str]:
    """Every instance type that the file's templates name, also those that are left out.

    Raises ConfigurationProblem when the file cannot be read.
    """
    found: set[str] = set()
    for entry in _entries(path)[0]:
        if not isinstance(entry, dict):
            continue
        for key, value in entry.items():
            match to_camel(key) if "_" in key else key, value:
                case "vmType", str():
                    found.update(ids(value))
                case "vmTypes" | "vmTypesOnDemand", dict():
                    found.update(name.strip() for name in value)
    for document in read_templates(path)[0]:
        found.update(weights_of(document))
    return sorted(name for name in found if name)


def revision(document: Mapping[str, Any]) -> str:
    """The id of a document's content: sha256, in hex, of its canonical JSON."""
    canonical = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()


def wire_template(document: Mapping[str, Any], *, lsf: bool = False) -> dict[str, Any]:
    """What getAvailableTemplates answers of a document (protocol 3.1): no launch detail. LSF looks
    for the memory by another name."""
    attributes = document["attributes"]
    if lsf:
        attributes = {**attributes, "mem": attributes.get("mem", attributes["nram"])}
    return {
        "templateId": document["template_id"],
        "maxNumber": document["max_number"],
        "attributes": attributes,
    }
