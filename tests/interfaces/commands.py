"""Running the operator's commands in a test's process."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.world import World


class Answer(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        return json.loads(self.out)  # type: ignore[no-any-return]


Run = Callable[..., Answer]


def refused(answer: Answer, *words: str) -> None:
    """Exit 1, nothing on stdout, one sentence on stderr that has the words."""
    assert (answer.status, answer.out) == (1, "")
    assert answer.err.startswith("hostledger: ")
    assert answer.err.count("\n") == 1
    for word in words:
        assert word in answer.err


def fulfilled(world: World, count: int) -> tuple[str, list[str]]:
    """The id of a request by HostFactory that is fulfilled, and those of its machines."""
    if not world.workers:
        world.start_worker()
    request_id = world.request(count)
    answer = world.run_until_final(request_id)
    return request_id, [machine["machineId"] for machine in answer["machines"]]
