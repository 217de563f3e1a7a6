"""The pages that the server's OpenAPI document makes: itself, and a table of its operations."""

from __future__ import annotations

import json
import sys
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

from infrastructure.site import Site
from interfaces.rest.app import create_app


@cache
def document() -> dict[str, Any]:
    with TemporaryDirectory() as nowhere:
        site = Site("awsinst", nowhere, nowhere, "")
        return create_app(site, {}, sys.executable).openapi()


def openapi_page() -> str:
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def rest_page(generated: str) -> str:
    """Every operation: what it is for, what it takes, what it may answer instead."""
    lines = [
        "# The server's API",
        "",
        generated,
        "",
        "What `hostledger server run` answers; [openapi.json](openapi.json) is the whole document,",
        "also served at `/openapi.json`. How to begin is in",
        "[Ask the ledger over HTTP](../how-to/ask-over-http.md).",
    ]
    for path, operations in document()["paths"].items():
        for method, operation in operations.items():
            if operation.get("tags", [""])[0] == "console":
                continue
            others = ", ".join(s for s in operation["responses"] if not s.startswith("2"))
            lines += [
                "",
                f"## {method.upper()} {path}",
                "",
                f"{operation['summary']}. {operation.get('description', '')}".strip(),
                "",
            ]
            rows = [_parameter(given) for given in operation.get("parameters", ())]
            if body := operation.get("requestBody"):
                name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
                rows += _body(document()["components"]["schemas"][name])
            if rows:
                lines += ["| parameter | in | what it is |", "|---|---|---|", *rows, ""]
            lines.append(f"Problems: {others}.")
    return "\n".join(lines) + "\n"


def _parameter(given: dict[str, Any]) -> str:
    schema = given["schema"]
    about = [given.get("description", "")]
    if "default" in schema:
        about.append(f"default {json.dumps(schema['default'])}")
    told = "; ".join(part for part in about if part)
    return f"| `{given['name']}` | {given['in']} | {told or schema.get('type', '')} |"


def _body(schema: dict[str, Any]) -> list[str]:
    rows = []
    for name, field in schema["properties"].items():
        need = "required" if name in schema.get("required", ()) else "optional"
        about = field.get("description") or field.get("type", "")
        rows.append(f"| `{name}` | body | {about}; {need} |")
    return rows
