"""A client that a public generator makes of the OpenAPI document asks a real server."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import run as execute
from typing import Any

import pytest
import uvicorn

from interfaces.rest.app import create_app
from tests.house.reference import DOCS
from tests.interfaces.commands import Run
from tests.interfaces.rest import new_token
from tests.world import World


@pytest.fixture
def address(world: World) -> Iterator[str]:
    """A server over the world's site, on loopback."""
    app = create_app(world.site, world.environ, sys.executable)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="on"))
    begun = threading.Event()
    listen = server.startup

    async def startup(sockets: Any = None) -> None:
        await listen(sockets)
        begun.set()

    server.startup = startup  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run)
    thread.start()
    assert begun.wait(60)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(60)
    assert not thread.is_alive()


STORY = """
import json, sys
from hostledger_client import AuthenticatedClient
from hostledger_client.api.requests import list_requests as listing
from hostledger_client.api.requests import request_machines as asking
from hostledger_client.api.requests import show_request as showing
from hostledger_client.models import AskForMachines

client = AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2])
asked = asking.sync(
    client=client,
    body=AskForMachines(template_id="OnDemand-A", machine_count=2, reason="by a client"),
    idempotency_key="one",
)
page = listing.sync(client=client, open_=True, wait_for=asked.position)
one = showing.sync(asked.request_id, client=client)
print(json.dumps([asked.request_id, [r.request_id for r in page.requests], one.machine_count]))
"""


def test_a_generated_client_works(world: World, run: Run, address: str, tmp_path: Path) -> None:
    made = execute(
        [
            *(sys.executable, "-m", "openapi_python_client", "generate"),
            *("--path", str(DOCS / "openapi.json"), "--meta", "none"),
            *("--output-path", str(tmp_path / "hostledger_client")),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        # It has its work formatted by the ruff in the PATH.
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert "Warning" not in made.stdout + made.stderr
    (tmp_path / "story.py").write_text(STORY)

    told = execute(
        [sys.executable, "story.py", address, new_token(run, "operator")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )

    assert told.returncode == 0, told.stderr
    request_id, listed, count = json.loads(told.stdout)
    assert (listed, count) == ([request_id], 2)
