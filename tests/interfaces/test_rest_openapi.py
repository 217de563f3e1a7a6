"""Every operation of the OpenAPI document with what fits it and with what does not: no answer is a
defect of ours, and each is as the document says."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.python import asgi
from schemathesis.specs.openapi import checks

from interfaces.rest.app import create_app
from tests.interfaces.commands import Run, fulfilled
from tests.interfaces.rest import new_token
from tests.world import World

EXAMPLES = 12
"""Of each operation, that fit, and as many that do not."""

WITHOUT_END = "/api/v1/events/stream"

CONFORM = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture
def served(world: World, run: Run) -> Iterator[tuple[Any, Any, str]]:
    """The document's operations, a client in this process, and an admin's token."""
    fulfilled(world, 2)
    app = create_app(world.site, world.environ, sys.executable)
    schema = schemathesis.openapi.from_dict(app.openapi())
    schema.app = app

    @schema.hook("map_query")
    def at_once(context: Any, query: Any) -> Any:
        """To wait for a position that never comes takes ten seconds."""
        return {k: v for k, v in query.items() if k != "wait_for"} if query else query

    with asgi.get_client(app) as client:
        yield schema, client, new_token(run, "admin")


def test_operations(served: tuple[Any, Any, str]) -> None:
    schema, client, token = served
    headers = {"Authorization": f"Bearer {token}"}
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 15
    tried: dict[str, int] = {}
    for operation in operations:
        if operation.path == WITHOUT_END:
            continue
        for mode in GenerationMode:

            @hypothesis.settings(
                max_examples=EXAMPLES, derandomize=True, database=None, deadline=None,
                suppress_health_check=list(hypothesis.HealthCheck),
                phases=[hypothesis.Phase.generate],
            )  # fmt: skip
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                answer = case.call(session=client, headers=headers)
                tried[case.operation.label] = tried.get(case.operation.label, 0) + 1
                case.validate_response(answer, checks=CONFORM)

            ask()
    assert len(tried) == len(operations) - 1
