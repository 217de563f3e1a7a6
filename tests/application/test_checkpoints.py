"""Signed checkpoints: what is said, who is believed, and that the worker takes them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from application import checkpoints
from application.failures import BrokenConfiguration, StoreError
from infrastructure.aws.client import Connection
from infrastructure.checkpoints import CheckpointFile, read_key, safe_of
from infrastructure.sandbox.clients import attach
from infrastructure.sandbox.wire import AwsRequest, AwsResponse
from infrastructure.settings.aws import Aws
from infrastructure.telemetry.journal import Journal
from tests.fakes.clock import FakeClock
from tests.infrastructure.aws_cloud import LOGGING
from tests.world import World

KEY = b"0123456789abcdef" * 2
DEPLOYMENT = "d1e2f3a4" * 4
AT = "2027-01-15T08:00:00.000000Z"


def line(position: int = 7, chain: str = "c7", deployment: str = DEPLOYMENT) -> str:
    return checkpoints.take(deployment, (position, chain), AT, "0.1.0", KEY)


def test_a_checkpoint_says_what_the_end_was() -> None:
    """A JSON line with deployment, position, chain, time, program version and signature."""
    said = json.loads(line())

    signature = said.pop("signature")
    assert said == {
        "deployment": DEPLOYMENT,
        "position": 7,
        "chain": "c7",
        "taken_at": AT,
        "program_version": "0.1.0",
    }
    assert len(bytes.fromhex(signature)) == 32


def test_what_is_signed_is_believed_and_nothing_else() -> None:
    """Each that was changed, signed by another, of another deployment or no checkpoint at all."""
    changed = line().replace('"position":7', '"position":8')
    stranger = line(deployment="f" * 32)
    of_other_key = checkpoints.take(DEPLOYMENT, (9, "c9"), AT, "0.1.0", KEY[::-1])

    chains, problems, good = checkpoints.read(
        [line(), "\n", changed, stranger, of_other_key, "{}", "no JSON", line(12, "c12")],
        DEPLOYMENT,
        KEY,
    )

    assert {position: list(found) for position, found in chains.items()} == {7: ["c7"], 12: ["c12"]}
    assert good == 2
    assert [problem.partition(":")[0] for problem in problems] == [
        f"checkpoint {number}" for number in (2, 3, 4, 5, 6)
    ]


def test_no_checkpoint_at_all_is_said() -> None:
    with pytest.raises(StoreError, match="no checkpoint"):
        checkpoints.read(["\n"], DEPLOYMENT, KEY)


@pytest.mark.parametrize("content", [None, "short"])
def test_a_key_must_be_one(tmp_path: Path, content: str | None) -> None:
    """Missing or guessable: the key's setting is named."""
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)

    with pytest.raises(BrokenConfiguration, match=r"audit\.checkpoint_key"):
        read_key(str(path))


def test_a_file_takes_one_line_for_each_end(tmp_path: Path) -> None:
    """The same end is not told twice; after a restore an earlier one is; a directory has a file
    for each deployment; only the owner reads it."""
    safe = CheckpointFile(f"{tmp_path}/kept/", DEPLOYMENT)

    def keep(position: int, chain: str) -> str | None:
        return checkpoints.keep(safe, DEPLOYMENT, (position, chain), AT, "0.1.0", KEY)

    path = f"{tmp_path}/kept/{DEPLOYMENT}.jsonl"
    assert keep(7, "c7") == path
    assert keep(7, "c7") is None
    assert keep(9, "c9") == path
    assert keep(8, "restored") == path
    assert len(Path(path).read_text().splitlines()) == 3
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_an_object_in_s3_is_named_by_its_position() -> None:
    """A real client's PutObject: bucket, key, body, and the checksum that object lock asks for."""
    sent: list[AwsRequest] = []

    def answer(request: AwsRequest) -> AwsResponse:
        sent.append(request)
        return AwsResponse(200, {"ETag": '"e"'}, b"")

    def on_client(client: Any) -> None:
        attach(client, answer)

    clock = FakeClock()
    aws = Connection(Aws(region="eu-west-1"), clock, Journal("", LOGGING), on_client)
    safe = safe_of("s3://proofs/hostledger", DEPLOYMENT, lambda: aws)

    where = checkpoints.keep(safe, DEPLOYMENT, (7, "c7"), AT, "0.1.0", KEY)

    assert where == f"s3://proofs/hostledger/{DEPLOYMENT}/000000000007.json"
    assert checkpoints.keep(safe, DEPLOYMENT, (7, "c7"), AT, "0.1.0", KEY) is None
    (request,) = sent
    assert request.method == "PUT"
    assert request.url.endswith(f"/hostledger/{DEPLOYMENT}/000000000007.json")
    assert line().encode() in request.body
    assert any(name.lower() == "x-amz-sdk-checksum-algorithm" for name in request.headers)


# -- the worker -----------------------------------------------------------------------------------


def site(make_world: Callable[..., World], tmp_path: Path, kept: Path) -> World:
    key = tmp_path / "key"
    key.write_bytes(KEY)
    return make_world(
        settings={
            "HOSTLEDGER_AUDIT__CHECKPOINT_TO": str(kept),
            "HOSTLEDGER_AUDIT__CHECKPOINT_KEY": str(key),
        },
        boot_time=20.0,
        shutdown_time=15.0,
    )


def test_the_worker_takes_one_an_hour_when_events_came(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    """One at its start, one an hour later, none in an hour in which nothing happened."""
    kept = tmp_path / "kept.jsonl"
    world = site(make_world, tmp_path, kept)

    def positions() -> list[int]:
        return [json.loads(said)["position"] for said in kept.read_text().splitlines()]

    world.start_worker()
    world.run(5)
    first = len(world.topics())
    assert positions() == [first]
    world.fulfilled(1)
    world.run(1800, step=30.0)
    assert positions() == [first]
    world.run(1800, step=30.0)
    end = len(world.topics())
    assert positions() == [first, end]
    world.run(3700, step=30.0)

    assert positions() == [first, end]
    chains, problems, _ = checkpoints.read(kept.read_text().splitlines(), world.deployment, KEY)
    ((chain,),) = world.query("SELECT chain FROM events WHERE position = ?", end)
    assert list(chains[end]) == [chain]
    assert problems == []


def test_work_goes_on_when_no_checkpoint_can_be_kept(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    """It is said in the log, and tried again after five minutes."""
    (tmp_path / "file").write_text("")
    kept = tmp_path / "file" / "kept.jsonl"
    world = site(make_world, tmp_path, kept)
    world.start_worker()

    world.fulfilled(1)

    log = Path(world.site.log_file).read_text()
    assert "no checkpoint" in log
    assert str(kept) in log
    os.unlink(tmp_path / "file")
    world.run(320, step=5.0)
    assert len(kept.read_text().splitlines()) == 1
