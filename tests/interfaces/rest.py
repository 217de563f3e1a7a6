"""Asking the server in a test's process: the application itself, without a socket."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2 as httpx
from starlette.testclient import TestClient

from interfaces.rest.app import create_app
from tests.interfaces.commands import Run
from tests.world import World

API = "/api/v1"


class Client:
    """A client with a token; `get` and the others take the path below /api/v1."""

    def __init__(self, http: TestClient, token: str) -> None:
        self.http = http
        self.token = token
        self.app: Any = http.app

    def _headers(self, more: dict[str, str]) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", **more}

    def get(self, path: str, headers: dict[str, str] | None = None, **query: Any) -> httpx.Response:
        return self.http.get(API + path, params=query, headers=self._headers(headers or {}))

    def post(self, path: str, document: Any, key: str | None = None) -> httpx.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.http.post(API + path, json=document, headers=self._headers(headers))

    def delete(self, path: str) -> httpx.Response:
        return self.http.delete(API + path, headers=self._headers({}))

    def document(self, path: str, **query: Any) -> dict[str, Any]:
        answer = self.get(path, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]

    def of(self, role: str, run: Run) -> Client:
        """The same server, asked with a new token."""
        return Client(self.http, new_token(run, role))


def new_token(run: Run, role: str) -> str:
    return run("tokens", "create", "--role", role).out.strip()


@contextmanager
def serving(world: World, run: Run, role: str = "viewer") -> Iterator[Client]:
    """The server over a world's site, and a client of it with this role."""
    app = create_app(world.site, world.environ, sys.executable)
    with TestClient(app, raise_server_exceptions=False) as http:
        yield Client(http, new_token(run, role))


def problem(answer: httpx.Response, status: int, name: str, *words: str) -> None:
    """It is this problem, and its detail has the words."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["type"] == f"urn:hostledger:problem:{name}"
    assert document["status"] == status
    for word in words:
        assert word in document["detail"]
