"""What can be wrong with a template, as one line for people."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pydantic_core import PydanticCustomError


@dataclass(frozen=True, slots=True)
class TemplateProblem:
    """What is wrong with one template of a file; `fatal` leaves that template out.

    `field` is the name as the file spells it; `template_id` is "number N" (from 1) for a template
    without one, "any" where it cannot be told. The file's other templates are served all the same.
    """

    path: str
    template_id: str
    field: str
    problem: str
    fatal: bool

    def __str__(self) -> str:
        """One line for people."""
        end = "; the template is left out" if self.fatal else ""
        text = f"{self.path}: template {self.template_id}: {self.field}: {self.problem}{end}"
        return " ".join(text.splitlines())


class Refused(Exception):
    """A template that is left out, for this field and this reason."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem


def field_problem(field: str, problem: str) -> PydanticCustomError:
    """What a validator raises about a field below or beside its own."""
    # The text is a parameter, since braces of the site's would be taken for one.
    return PydanticCustomError("field", "{problem}", {"field": field, "problem": problem})


def shown(value: object) -> str:
    """A value of the file, short enough for a line."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
