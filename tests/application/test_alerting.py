"""Alerts: one event, one line and one delivery a crossing; each ready-made one with its cause."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from application.alerting import CHAIN, ERROR_RATE, INTENT, ORPHANS, OVERDUE, RESPONSE_TIME, SWEEP
from tests.application.test_monitoring import OFTEN, served
from tests.fakes.clock import FakeClock
from tests.infrastructure.aws_cloud import LOGGING
from tests.interfaces.test_cli import make_orphan
from tests.world import World

KEY = "HOSTLEDGER_MONITORING__PERFORMANCE__ALERTS__"


@pytest.fixture
def make_site(make_world: Callable[..., World]) -> Callable[..., World]:
    """A site whose alerts are judged every 30 s, with these keys of `alerts`."""

    def make(**keys: str) -> World:
        settings = OFTEN | {KEY + name.upper(): value for name, value in keys.items()}
        return make_world(boot_time=20.0, shutdown_time=15.0, settings=settings)

    return make


def crossings(world: World, name: str) -> list[str]:
    """What happened to an alert, in order."""
    return [
        topic
        for (topic,) in world.query(
            "SELECT topic FROM events WHERE stream = ? ORDER BY position", f"alert-{name}"
        )
    ]


def journal(world: World) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(world.site.log_file).read_text().splitlines()]


class Receiver:
    """An HTTP server that takes what is posted; `status` is what it answers."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.status = 200
        self.body = b""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.got.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(receiver.status)
                self.send_header("Content-Length", str(len(receiver.body)))
                self.end_headers()
                self.wfile.write(receiver.body)

            def log_message(self, *_: Any) -> None: ...

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in self.got]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


# -- the edge -------------------------------------------------------------------------------------


def test_a_crossing_is_one_event_one_line_and_a_metric(make_site: Callable[..., World]) -> None:
    """Sweeps fail for ten minutes, then succeed: raised once, cleared once."""
    world = make_site()
    world.start_worker()
    world.fulfilled(1)
    fault = world.sandbox.add_fault("e500", action="DescribeInstances", times=-1)
    world.run(600)

    assert crossings(world, SWEEP) == ["AlertRaised"]
    assert served(world)["alert_raised", SWEEP] == 1
    (raised,) = world.events("AlertRaised")
    assert raised["limit"] == 90.0
    assert raised["value"] > 90.0
    assert "default/us-east-1" in raised["message"]

    fault.clear()
    world.run(120)

    assert crossings(world, SWEEP) == ["AlertRaised", "AlertCleared"]
    assert served(world)["alert_raised", SWEEP] == 0
    told = [(e["what"], e["level"]) for e in journal(world) if e["what"].startswith("alert ")]
    assert told == [("alert raised", "WARN"), ("alert cleared", "INFO")]


def test_the_next_worker_knows_what_is_raised(make_site: Callable[..., World]) -> None:
    """It neither raises it again nor forgets to clear it."""
    world = make_site()
    world.start_worker()
    world.fulfilled(1)
    fault = world.sandbox.add_fault("e500", action="DescribeInstances", times=-1)
    world.run(200)
    world.kill(world.workers[0])
    world.start_worker()
    world.run(200)
    assert crossings(world, SWEEP) == ["AlertRaised"]

    fault.clear()
    world.run(120)

    assert crossings(world, SWEEP) == ["AlertRaised", "AlertCleared"]


def test_a_quiet_site_raises_nothing(make_site: Callable[..., World]) -> None:
    """Although nobody has swept for long, and no limit of the site's is set."""
    world = make_site()
    world.start_worker()
    machines = world.fulfilled(2)
    world.final(world.give_back(machines))
    world.run(300)

    assert world.events("AlertRaised") == []


# -- ready-made alerts ----------------------------------------------------------------------------


def test_an_intent_and_a_request_that_stay_open_are_told(make_site: Callable[..., World]) -> None:
    """AWS answers nothing to launches, and sweeps fail: neither can end."""
    world = make_site()
    world.start_worker()
    world.run(5)
    for action in ("RunInstances", "DescribeInstances"):
        world.sandbox.add_fault("e500", action=action, times=-1)
    request_id = world.request(1)
    world.run(800)
    assert crossings(world, INTENT) == []
    world.run(700)

    assert crossings(world, INTENT) == ["AlertRaised"]
    assert crossings(world, OVERDUE) == ["AlertRaised"]
    assert any(request_id in event["message"] for event in world.events("AlertRaised"))


def test_orphans_are_told(make_site: Callable[..., World]) -> None:
    world = make_site()
    strays = make_orphan(world, 2)
    world.run(60)

    assert len(strays) == 2
    assert crossings(world, ORPHANS) == ["AlertRaised"]
    assert world.events("AlertRaised")[0]["value"] == 2


def test_a_changed_event_is_told_although_nothing_can_be_recorded(
    make_site: Callable[..., World], tmp_path: Path
) -> None:
    """The log's end was tampered with: no event can follow, and the operator hears of it."""
    got = tmp_path / "got.json"
    world = make_site(command=script(tmp_path, f'cat >> "{got}"'))
    world.start_worker()
    world.fulfilled(1)
    world.storage().event_store(world.clock, {"user": "x"}).connection.execute(
        "UPDATE events SET data = replace(data, '1', '2') "
        "WHERE position = (SELECT max(position) FROM events)"
    )
    world.run(120)

    settle(world)
    told = [e for e in journal(world) if e["what"] == "alert raised"]
    assert [e["alert"] for e in told] == [CHAIN]
    assert json.loads(got.read_text())["alert"] == CHAIN
    assert crossings(world, CHAIN) in ([], ["AlertRaised"])


def test_a_changed_event_within_the_log_is_told_soon(make_site: Callable[..., World]) -> None:
    """It is not the last one, so that commits go on; what measures the log looks at each event."""
    world = make_site()
    world.start_worker()
    world.fulfilled(1)
    world.run(35)
    assert crossings(world, CHAIN) == []
    before = len(world.topics())
    world.request(1)
    world.run(3)
    assert len(world.topics()) > before + 2
    store = world.storage().event_store(world.clock, {"user": "x"})
    store.connection.execute(
        "UPDATE events SET data = replace(data, 'awsinst', 'another') WHERE position = ?",
        (before + 1,),
    )
    store.close()
    world.run(40)

    assert crossings(world, CHAIN) == ["AlertRaised"]
    (raised,) = world.events("AlertRaised")
    assert f"event {before + 1} " in raised["message"]


# -- the three thresholds -------------------------------------------------------------------------


def test_slow_operations_are_told_beyond_the_sites_limit(make_site: Callable[..., World]) -> None:
    """A limit that every turn passes, and one that none does."""
    for limit, expected in (("0.0000001", ["AlertRaised"]), ("1000", [])):
        world = make_site(response_time_threshold=limit)
        world.start_worker()
        world.run(90)
        assert crossings(world, f"{RESPONSE_TIME}-worker") == expected


def test_failing_operations_are_told_beyond_the_sites_limit(
    make_site: Callable[..., World],
) -> None:
    """AWS throttles all that is asked of it; without a limit nobody is told."""
    for keys, expected in (({"error_rate_threshold": "0.05"}, ["AlertRaised"]), ({}, [])):
        world = make_site(**keys)
        world.start_worker()
        world.run_until_final(world.request(1))
        world.sandbox.add_fault("throttle", action="*", times=-1)
        world.request(1)
        world.run(120)
        assert crossings(world, f"{ERROR_RATE}-worker")[:1] == expected


def test_memory_in_use_is_told_beyond_the_sites_limit(make_site: Callable[..., World]) -> None:
    for limit, expected in (("0", ["AlertRaised"]), ("1", [])):
        world = make_site(memory_usage_threshold=limit)
        world.start_worker()
        world.run(40)
        assert crossings(world, "memory-usage-worker") == expected


# -- telling --------------------------------------------------------------------------------------


def script(directory: Path, body: str) -> str:
    path = directory / "page-me"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def settle(world: World, *sinks: str) -> None:
    """Wait for those who are telling somebody (all, or these sinks), however busy the machine."""
    for sink in world.workers[0]._monitoring._delivery.sinks:
        if sink.thread is not None and (not sinks or sink.name in sinks):
            sink.thread.join(60)
            assert not sink.thread.is_alive()


def alarmed(make_site: Callable[..., World], *sinks: str, **keys: str) -> World:
    """A site that has just raised one alert, and told it to these sinks, or all."""
    world = make_site(memory_usage_threshold="0", **keys)
    world.start_worker()
    world.run(3)
    settle(world, *sinks)
    return world


def test_a_webhook_gets_the_alert_as_json(
    make_site: Callable[..., World], receiver: Receiver
) -> None:
    world = alarmed(make_site, webhook_url=receiver.url)

    (document,) = receiver.documents
    assert document["alert"] == "memory-usage-worker"
    assert document["state"] == "raised"
    assert document["limit"] == 0.0
    assert 0 < document["value"] <= 1
    assert document["provider"] == "awsinst"
    assert document["deployment"] == world.deployment
    assert document["at"] == pytest.approx(world.clock.wall, abs=5)


def test_a_command_gets_it_on_its_standard_input(
    make_site: Callable[..., World], tmp_path: Path
) -> None:
    got = tmp_path / "got.json"
    alarmed(make_site, command=script(tmp_path, f'cat > "{got}"'))

    assert json.loads(got.read_text())["alert"] == "memory-usage-worker"


def test_a_topic_gets_it_by_sns(make_world: Callable[..., World], receiver: Receiver) -> None:
    """The real client of boto3 against something that answers as SNS does."""
    receiver.body = (
        b'<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishResult>'
        b"<MessageId>1</MessageId></PublishResult></PublishResponse>"
    )
    topic = "arn:aws:sns:eu-west-1:123456789012:alerts"
    from infrastructure.aws.client import Connection
    from infrastructure.settings.aws import Aws
    from infrastructure.telemetry.journal import Journal
    from infrastructure.telemetry.sinks import sns

    aws = Aws(region="eu-west-1", endpoint_url=receiver.url)
    publish = sns(topic, lambda: Connection(aws, FakeClock(), Journal("", LOGGING), None))

    publish({"alert": "orphans", "state": "raised", "message": "2 instances"})

    sent = parse_qs(receiver.got[0].decode())
    assert sent["Action"] == ["Publish"]
    assert sent["TopicArn"] == [topic]
    assert sent["Subject"] == ["Hostledger: orphans raised"]
    assert json.loads(sent["Message"][0])["message"] == "2 instances"


def test_a_sink_that_fails_is_logged_and_told_later(
    make_site: Callable[..., World], receiver: Receiver
) -> None:
    """It is told once when it takes it; the log has why it did not, without the URL's secret."""
    receiver.status = 503
    world = alarmed(make_site, webhook_url=receiver.url + "/hook?key=secret")
    assert len(receiver.got) == 1
    receiver.status = 204
    world.run(60)
    settle(world)

    assert len(receiver.got) == 2
    world.run(120)
    settle(world)
    assert len(receiver.got) == 2
    lines = [e for e in journal(world) if e["what"] == "alert not told yet"]
    assert [e["sink"] for e in lines] == ["webhook"]
    assert "503" in lines[0]["message"]
    assert "secret" not in Path(world.site.log_file).read_text()
    found = served(world)
    assert found["alert_deliveries_total", "failed", "webhook"] == 1
    assert found["alert_deliveries_total", "told", "webhook"] == 1


def test_a_sink_that_hangs_holds_up_nothing(
    make_site: Callable[..., World], receiver: Receiver, tmp_path: Path
) -> None:
    """The other sink is told meanwhile, and turns go on; the command is waited for by nobody."""
    gate = tmp_path / "gate"
    hung = script(tmp_path, f'while ! [ -e "{gate}" ]; do sleep 0.05; done')
    world = alarmed(make_site, "webhook", webhook_url=receiver.url, command=hung)

    assert len(receiver.got) == 1
    assert world.fulfilled(1)
    gate.touch()
    settle(world)
