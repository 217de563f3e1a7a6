"""`hostledger audit`: one thing's history, why a machine existed, the log as it grows."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from interfaces.cli import audit
from interfaces.cli.main import _parser
from interfaces.read_side import Call
from tests.interfaces.commands import Run, fulfilled, refused
from tests.interfaces.test_cli_processes import HOSTLEDGER
from tests.stores import STORES
from tests.tampering import rehashed, rewrite, rows_of
from tests.world import World

EVERY_STORE = STORES


def returned(world: World, machine_id: str) -> str:
    """The id of a return of a machine that is over."""
    return_id = world.give_back([{"machineId": machine_id, "name": ""}])
    world.run_until_final(return_id)
    return return_id


def sent(world: World, action: str) -> list[str]:
    """The request ids that AWS gave to calls of this action."""
    return [data["aws_request_id"] for data in world.events(action)]


# -- history --------------------------------------------------------------------------------------


@pytest.mark.stores("sqlite", "postgresql")
def test_history_names_the_aws_calls_behind_a_thing(world: World, run: Run) -> None:
    """A machine's are its launch and its termination, a request's the launches that served it, a
    return's the terminations; a batch and a termination have their own."""
    request_id, (one, two) = fulfilled(world, 2)
    other, _ = fulfilled(world, 1)
    return_id = returned(world, one)
    launch, _ = sent(world, "LaunchAccepted")
    (termination,) = sent(world, "TerminationAccepted")

    def calls(identifier: str) -> list[tuple[str, str]]:
        answer = run("audit", "history", identifier, "--output", "json")
        return [(call["api"], call["aws_request_id"]) for call in answer.document["aws_calls"]]

    launched, ended = ("RunInstances", launch), ("TerminateInstances", termination)
    assert calls(one) == [launched, ended]
    assert calls(two) == [launched]
    assert calls(request_id) == [launched]
    assert calls(return_id) == [ended]
    ((stream, _), _) = world.streams("LaunchAccepted")
    assert calls(stream.removeprefix("batch-")) == [launched]
    ((stream, _),) = world.streams("TerminationAccepted")
    assert calls(stream.removeprefix("termination-")) == [ended]
    assert calls("OnDemand-A") == []
    assert launch not in [request for _, request in calls(other)]
    assert termination in run("audit", "history", one).out


# -- explain --------------------------------------------------------------------------------------


@pytest.mark.stores("sqlite", "postgresql")
def test_explain_tells_a_whole_life(world: World, run: Run) -> None:
    """Who asked, from which revision, what AWS said, how long it ran, who returned it, what ended
    it: as the events say, and each event with the one that led to it."""
    world.start_worker()
    request_id, (machine_id, other) = fulfilled(world, 2)
    world.run(30)
    world.to_give_up([{"machineId": machine_id, "name": ""}, {"machineId": other, "name": ""}])
    world.run(5)
    return_id = returned(world, machine_id)

    told = run("audit", "explain", machine_id, "--output", "json").document

    assert told["asked"]["request_id"] == request_id
    assert told["asked"]["actor"]["process"].startswith("requestMachines[")
    (revised,) = world.events("TemplateRevised")
    assert told["template"]["revision"] == revised["revision"]
    assert told["launch"]["aws_request_id"] == sent(world, "LaunchAccepted")[0]
    assert (told["launch"]["given"], told["launch"]["missing"]) == (2, 0)
    assert told["life"]["named_by_host_factory_at"] > told["life"]["running_at"]
    assert told["life"]["seconds"] > 50
    (handed_back,) = told["returns"]
    assert (handed_back["return_id"], handed_back["source"]) == (return_id, "hostfactory")
    ((termination,),) = [told["end"]["terminations"]]
    (answer,) = termination["answers"]
    assert answer["aws_request_id"] == sent(world, "TerminationAccepted")[0]
    assert told["end"]["topic"] == "MachineTerminated"
    because = {event["topic"]: event["because_of"] for event in told["events"]}
    place = {event["topic"]: event["position"] for event in told["events"]}
    assert because["LaunchIntended"] == place["MachinesRequested"]
    assert because["MachineLaunched"] == place["LaunchAccepted"]
    assert because["MachineReturned"] == place["MachinesReturned"]
    assert because["MachinesRequested"] is None
    assert place["ReturnCompleted"] == max(place.values())
    streams = {event["stream"] for event in told["events"]}
    assert f"machine-{other}" not in streams

    page = run("audit", "explain", machine_id).out

    for part in (
        request_id,
        return_id,
        f"AWS's request id: {told['launch']['aws_request_id']}",
        answer["aws_request_id"],
        "requestMachines of awsinst",
        "HostFactory named it among its hosts",
        "It lived for 1 min",
        "returned by HostFactory",
    ):
        assert part in page


@pytest.mark.stores("sqlite")
def test_explain_tells_what_aws_lacked(world: World, run: Run) -> None:
    """A refusal before the launch that gave the machine is told with AWS's code."""
    world.sandbox.add_fault(
        "error", action="RunInstances", times=1, code="InsufficientInstanceCapacity", message="No."
    )
    _, (machine_id,) = fulfilled(world, 1)

    told = run("audit", "explain", machine_id, "--output", "json").document

    assert [short["reason"] for short in told["shortages"]] == ["InsufficientInstanceCapacity"]
    assert "InsufficientInstanceCapacity" in run("audit", "explain", machine_id).out


@pytest.mark.stores("sqlite")
def test_explain_of_a_living_machine_says_what_is_not_known(world: World, run: Run) -> None:
    """Nobody returned it, nothing ended it: said so, not left out."""
    _, (machine_id,) = fulfilled(world, 1)

    page = run("audit", "explain", machine_id).out

    assert "not known to have ended" in page
    assert "Nobody." in page
    assert "Nothing yet" in page
    assert "HostFactory never named it" in page


@pytest.mark.stores("sqlite")
def test_explain_tells_who_gave_what_reason(world: World, run: Run) -> None:
    """An operator's protection and return are told with the reasons."""
    _, (machine_id,) = fulfilled(world, 1)
    run("machines", "protect", machine_id, "--reason", "a long job")
    run("machines", "unprotect", machine_id, "--reason", "it is done")
    run("machines", "return", machine_id, "--reason", "too dear")

    page = run("audit", "explain", machine_id).out

    assert "MachineProtected: a long job, by hostledger machines protect" in page
    assert "too dear" in page


@pytest.mark.stores("sqlite")
def test_explain_tells_why_an_operator_asked(world: World, run: Run) -> None:
    """The reason of `requests create` is on record."""
    create = ("requests", "create", "--template", "OnDemand-A", "--count", "1")
    request_id = run(*create, "--reason", "to try the new image").out.strip()
    world.start_worker()
    (machine,) = world.run_until_final(request_id)["machines"]

    page = run("audit", "explain", machine["machineId"]).out

    assert "The reason given: to try the new image" in page


@pytest.mark.stores("sqlite")
def test_explain_refuses_what_was_never_ours(world: World, run: Run) -> None:
    """An unknown id is named, with where strangers are shown."""
    refused(run("audit", "explain", "i-0stranger"), "i-0stranger", "orphans list")


# -- tail -----------------------------------------------------------------------------------------


@pytest.mark.stores("sqlite")
def test_tail_since_a_time_is_all_from_then_on(world: World, run: Run) -> None:
    """The first event of that very time is in it, none before; another zone is the same time."""
    fulfilled(world, 1)
    times = [row[0] for row in world.query("SELECT recorded_at FROM events ORDER BY position")]
    at = next(time for time in times if time > times[0])
    expected = [n for n, time in enumerate(times, start=1) if time >= at]

    def positions(since: str) -> list[int]:
        answer = run("audit", "tail", "--since", since, "--output", "json")
        return [event["position"] for event in answer.document["events"]]

    assert positions(at) == expected
    assert positions("1970-01-01") == list(range(1, len(times) + 1))
    assert positions("9000-01-01T00:00:00+02:00") == []
    assert run("audit", "tail", "--type", "Nothing").out == "no event\n"
    refused(run("audit", "tail", "--since", "yesterday"), "yesterday")


def test_tail_follows_and_misses_nothing(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Between two looks come none, one, or more than one look reads at once: each event is told
    once and in order, and Ctrl-C ends it well."""
    bursts = iter([0, 1, 3, 0, 2])

    class Clock:
        def sleep(self, _: float) -> None:
            burst = next(bursts, None)
            if burst is None:
                raise KeyboardInterrupt
            for _ in range(burst):
                world.request(1)

    arguments = _parser("audit").parse_args(["audit", "tail", "--follow", "--output", "json"])
    call = Call("audit tail", world.environ, "python", world.site)
    call.clock = Clock()  # type: ignore[assignment]

    with pytest.raises(KeyboardInterrupt):
        audit._follow(arguments, call)

    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["topic"] for event in told] == world.topics()
    assert [event["position"] for event in told] == list(range(1, len(told) + 1))


@pytest.mark.stores("sqlite")
def test_a_followed_log_is_left_by_ctrl_c(world: World) -> None:
    """A real process tells a later event as it comes, and ends with 0."""
    environ = {
        "HF_PROVIDER_NAME": world.site.provider,
        "HF_PROVIDER_CONFDIR": world.site.conf_dir,
        "HF_PROVIDER_WORKDIR": world.site.work_dir,
        "HF_PROVIDER_LOGDIR": world.site.log_dir,
    }
    words = [str(HOSTLEDGER), "audit", "tail", "--follow", "--topic", "MachinesRequested"]
    with subprocess.Popen(
        words,
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
        # Tests that run in the background are told to ignore it.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as followed:
        assert followed.stdout is not None
        world.request(1)
        first = followed.stdout.readline()
        world.request(1)
        second = followed.stdout.readline()
        followed.send_signal(signal.SIGINT)
        rest = followed.stdout.read()

    assert "MachinesRequested" in first
    assert "requestMachines" in second
    assert (followed.returncode, rest) == (0, "")


# -- verify ---------------------------------------------------------------------------------------


@pytest.fixture
def key(world: World) -> str:
    """The path of a key that signs checkpoints."""
    path = world.root / "key"
    path.write_text("0123456789abcdef" * 2 + "\n")
    return str(path)


def change(world: World, position: int) -> None:
    """Change an event behind the store's back."""
    with closing(sqlite3.connect(world.path)) as connection, connection:
        connection.execute(
            "UPDATE events SET data = replace(data, '300.0', '900.0') WHERE position = ?",
            (position,),
        )


@pytest.mark.stores("sqlite")
def test_verify_says_that_all_is_sound(world: World, run: Run) -> None:
    """Exit 0, how far, and the chain at the end, for whoever keeps it."""
    fulfilled(world, 2)

    answer = run("audit", "verify")
    document = run("audit", "verify", "--output", "json").document

    assert answer.status == 0
    end = len(world.topics())
    assert f"sound: events 1 to {end}" in answer.out
    assert document["chain"] in answer.out
    assert document["is_sound"] is True
    assert f"{end} of {end} events" in answer.err


@pytest.mark.stores("sqlite")
def test_verify_says_what_was_changed_and_what_is_sound(world: World, run: Run) -> None:
    """Exit 1, the position, the stream, what is wrong."""
    request_id, _ = fulfilled(world, 1)
    change(world, 3)

    answer = run("audit", "verify")

    assert answer.status == 1
    (line,) = [line for line in answer.out.splitlines() if line.lstrip().startswith("3 ")]
    assert f"request-{request_id}" in line
    assert "its content is not what was recorded" in line
    assert f"sound: events 1 to 2, 4 to {len(world.topics())}" in answer.out
    assert "not what was written" in answer.err


@pytest.mark.stores("sqlite")
def test_an_inert_copy_can_be_verified(world: World, run: Run) -> None:
    """An auditor's backup is none that may live, and is looked at all the same."""
    fulfilled(world, 1)
    world.restore(world.backup())

    assert run("audit", "verify").status == 0


# -- checkpoints ----------------------------------------------------------------------------------


@pytest.fixture
def kept(world: World, key: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the world's site keeps its checkpoints."""
    path = world.root / "kept.jsonl"
    monkeypatch.setenv("HOSTLEDGER_AUDIT__CHECKPOINT_TO", str(path))
    monkeypatch.setenv("HOSTLEDGER_AUDIT__CHECKPOINT_KEY", key)
    return path


@pytest.mark.stores("sqlite")
def test_a_checkpoint_taken_by_hand_is_compared(world: World, run: Run, kept: Path) -> None:
    """Once for each end; from a file or from a directory of files."""
    fulfilled(world, 1)

    first = run("audit", "checkpoint", "--output", "json").document
    second = run("audit", "checkpoint", "--output", "json").document

    assert first == {"kept": str(kept), "position": len(world.topics())}
    assert second["kept"] is None
    (kept.parent / "some" / "where").mkdir(parents=True)
    (kept.parent / "some" / "where" / "one.json").write_bytes(kept.read_bytes())
    for place in (kept, kept.parent / "some"):
        answer = run("audit", "verify", "--checkpoint", str(place))
        assert answer.status == 0
        assert "1 checkpoints compared, 0 not believed" in answer.out


@pytest.mark.stores("sqlite")
def test_a_forged_log_is_found_by_a_checkpoint_alone(world: World, run: Run, kept: Path) -> None:
    """Who makes every later hash anew, or cuts off the end and what was noted of it, is found."""
    fulfilled(world, 1)
    run("audit", "checkpoint")
    rows = rows_of(world.storage())
    os.unlink(world.path + ".lock")

    def findings() -> list[dict[str, Any]]:
        document = run("audit", "verify", "--output", "json").document
        return document["findings"]  # type: ignore[no-any-return]

    rewrite(world.storage(), rows[:-2])
    assert findings() == []
    cut = run("audit", "verify", "--checkpoint", str(kept))
    forged = list(rows)
    forged[2] = (*rows[2][:8], rows[2][8].replace("300.0", "900.0"), *rows[2][9:])
    rewrite(world.storage(), rehashed(forged, world.deployment))
    assert findings() == []
    changed = run("audit", "verify", "--checkpoint", str(kept))

    assert (cut.status, changed.status) == (1, 1)
    assert "its end was cut off" in cut.out
    assert "has another chain here" in changed.out


@pytest.mark.stores("sqlite")
def test_a_checkpoint_that_was_changed_proves_nothing(world: World, run: Run, kept: Path) -> None:
    """It is told, with exit 1; so is a key that is not the site's, and none at all."""
    run("audit", "checkpoint")
    kept.write_text(kept.read_text().replace('"position":1', '"position":2'))
    other = world.root / "other"
    other.write_text("f" * 32)

    answer = run("audit", "verify", "--checkpoint", str(kept))

    assert answer.status == 1
    assert "checkpoint 1: it was changed, or signed with another key" in answer.out
    refused(run("audit", "verify", "--checkpoint", str(kept), "--key", "/nowhere"), "/nowhere")


@pytest.mark.stores("sqlite")
def test_checkpoints_must_be_configured(world: World, run: Run) -> None:
    """Without a place or a key: which setting is missing."""
    refused(run("audit", "checkpoint"), "audit.checkpoint_to")
    path = world.root / "kept.jsonl"
    path.write_text("{}\n")
    refused(run("audit", "verify", "--checkpoint", str(path)), "audit.checkpoint_key")


@pytest.mark.stores("sqlite")
def test_verify_compares_the_read_models_with_the_events(world: World, run: Run) -> None:
    """A row that was changed behind the log's back is told, though every event is sound."""
    fulfilled(world, 1)
    assert "read models: equal to what the events make" in run("audit", "verify").out
    with closing(sqlite3.connect(world.path)) as connection, connection:
        connection.execute("UPDATE machines SET zone = 'elsewhere'")

    answer = run("audit", "verify")

    assert answer.status == 1
    assert "1 rows differ from what the events make; the first is machines" in answer.out
