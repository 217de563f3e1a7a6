"""The sandbox as an HTTP server on loopback, in this process or in one of its own."""

from __future__ import annotations

import argparse
import io
import ipaddress
import json
import select
import socket
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .dynamodb import DynamoDb
from .wire import AwsRequest, AwsResponse, NetworkFault

if TYPE_CHECKING:  # moto takes a second to import; only the process that serves needs it
    from .ec2 import Sandbox

CONTROL = "/_sandbox/"
# How long a hung request is held when the client does not give up.
HANG_LIMIT = 60.0
# How long a child may take to import moto and listen, and to end.
START_LIMIT = 60.0
STOP_LIMIT = 10.0


def serve(
    sandbox: Sandbox | DynamoDb,
    host: str = "127.0.0.1",
    port: int = 0,
    ready: Callable[[int], None] | None = None,
    *,
    allow_kill: bool = False,
) -> None:
    """Serve until the process ends; `ready` is told the port. Raises ValueError off loopback.

    The sandbox checks no credentials, so nobody else on the network may reach it. `allow_kill`
    lets whoever reaches the port have processes of this user killed (the fault "kill").
    """
    server = listen(sandbox, host, port, allow_kill=allow_kill)
    if ready is not None:
        ready(server.server_address[1])
    with server:
        server.serve_forever()


def listen(
    sandbox: Sandbox | DynamoDb, host: str = "127.0.0.1", port: int = 0, *, allow_kill: bool = False
) -> ThreadingHTTPServer:
    """A bound server that does not serve yet. Raises ValueError for an address off loopback."""
    if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
        raise ValueError(f"the sandbox listens on loopback only, not on {host}")
    return _Server((host, port), sandbox, allow_kill)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # clients come in bursts

    def __init__(
        self, address: tuple[str, int], sandbox: Sandbox | DynamoDb, allow_kill: bool
    ) -> None:
        self.sandbox = sandbox
        self.allow_kill = allow_kill
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    # Headers and body are two writes; without this the second waits for a delayed ACK (40 ms).
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if self.path.startswith(CONTROL):
            self._control("POST", body)
        else:
            self._aws(body)

    def do_GET(self) -> None:
        if self.path.startswith(CONTROL):
            self._control("GET", b"")
        else:
            self._aws(b"")

    def do_DELETE(self) -> None:
        self._control("DELETE", b"")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: stdout carries the port, and stderr is the user's terminal."""

    def _aws(self, body: bytes) -> None:
        request = AwsRequest(self.command, self.path, dict(self.headers.items()), body)
        try:
            # The sandbox locks itself, and not while a client is left hanging below.
            response = self.server.sandbox.handle(request)
        except NetworkFault as fault:
            if fault.kind == "timeout":
                self._wait_for_the_client()
            self._cut()
            return
        self._answer(response)

    def _control(self, method: str, body: bytes) -> None:
        try:
            status, result = _control(
                self.server.sandbox,
                method,
                self.path.removeprefix(CONTROL),
                json.loads(body or b"{}"),
                allow_kill=self.server.allow_kill,
            )
        except (KeyError, TypeError, ValueError) as error:
            status, result = 400, {"error": f"{type(error).__name__}: {error}"}
        text = json.dumps(result).encode()
        self._answer(AwsResponse(status, {"Content-Type": "application/json"}, text))

    def _answer(self, response: AwsResponse) -> None:
        self.send_response(response.status)
        for name, value in response.headers.items():
            if name.lower() not in ("content-length", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        try:
            self.wfile.write(response.body)
        except ConnectionError:
            self.close_connection = True  # the client went away; that is its right

    def _wait_for_the_client(self) -> None:
        """Hold the connection, saying nothing, until the client closes it."""
        select.select([self.connection], [], [], HANG_LIMIT)

    def _cut(self) -> None:
        """Close at once with a reset: lingering 0 seconds makes the kernel send RST, not FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        # The descriptor stays open until the files made from it are closed too. The base class
        # will flush and close what it finds, so it must find something.
        self.wfile.close()
        self.rfile.close()
        self.connection.close()
        self.wfile, self.rfile = io.BytesIO(), io.BytesIO()


# Sandbox's methods that take and return what JSON holds; they are told by their names.
_TOLD = frozenset(
    {
        "allow",
        "create_queue",
        "deny",
        "interrupt",
        "leftovers",
        "put_parameter",
        "send_message",
        "set_capacity",
    }
)


# DynamoDb's settings that may be told over HTTP.
_SETTINGS = frozenset({"index_lag", "stale_reads", "page_size", "table_delay"})


def _control(
    sandbox: Sandbox | DynamoDb, method: str, path: str, asked: dict[str, Any], *, allow_kill: bool
) -> tuple[int, Any]:
    """Answer a control request. Raises KeyError, TypeError or ValueError for a bad one."""
    part, slash, rest = path.partition("/")
    database = sandbox if isinstance(sandbox, DynamoDb) else sandbox.dynamodb
    told = database if slash and part == "dynamodb" else sandbox
    match method, rest if told is database else path:
        case "POST", "faults":
            if asked.get("kind") == "kill" and not allow_kill:
                return 403, {"error": "this server was not started with allow_kill"}
            if {"then", "where"} & set(asked):
                return 400, {"error": "functions cannot be sent; use match={parameter: value}"}
            told.add_fault(asked.pop("kind"), **asked)
            return 200, {}
        case "DELETE", "faults":
            told.clear_faults()
            return 200, {}
        case "GET", "calls":
            return 200, [asdict(call) for call in list[Any](told.calls)]
    if isinstance(told, DynamoDb):
        match method, rest:
            case "POST", "settings" if asked.keys() <= _SETTINGS:
                for name, value in asked.items():
                    setattr(told, name, value)
                return 200, {}
            case "POST", "expire":
                return 200, told.expire()
            case "GET", "counts":
                return 200, told.counts
        return 404, {"error": f"DynamoDB's stand-in has no {method} {CONTROL}{path}"}
    match method, path:
        case "GET", "instances":
            return 200, told.live_instances()
        case "POST", "terminate":
            told.terminate_behind_back(asked["ids"])
            return 200, {}
        case "POST", "stop":
            told.stop_behind_back(asked["ids"])
            return 200, {}
        case "POST", "protect":
            told.protect(asked["ids"], asked.get("on", True))
            return 200, {}
        case "POST", "network":
            told.make_network(**asked)
            return 200, {}
        case "POST", _ if path in _TOLD:
            return 200, getattr(told, path)(**asked)
    return 404, {"error": f"the sandbox has no {method} {CONTROL}{path}"}


class _Control:
    """A stand-in that is served at `url`, asked and told over HTTP under `path`."""

    path = ""

    def __init__(self, url: str) -> None:
        self.url = url
        # A proxy from the environment must not be asked for loopback.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def add_fault(
        self, kind: str, *, action: str, from_call: int = 1, times: int = 1, **params: Any
    ) -> None:
        """As the stand-in's add_fault, without functions. Raises ValueError with its words."""
        self._ask(
            "POST",
            "faults",
            {"kind": kind, "action": action, "from_call": from_call, "times": times, **params},
        )

    def clear_faults(self) -> None:
        """As the stand-in's clear_faults."""
        self._ask("DELETE", "faults")

    def calls(self) -> list[dict[str, Any]]:
        """As the stand-in's calls, each as a dictionary."""
        found: list[dict[str, Any]] = self._ask("GET", "calls")
        return found

    def _ask(self, method: str, path: str, asked: Mapping[str, Any] | None = None) -> Any:
        body = None if asked is None else json.dumps(asked).encode()
        request = urllib.request.Request(
            f"{self.url}{CONTROL}{self.path}{path}", data=body, method=method
        )
        try:
            with self._opener.open(request, timeout=START_LIMIT) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error)["error"]) from error


class DynamoDbControl(_Control):
    """DynamoDb at `url`, alone or within a Sandbox."""

    path = "dynamodb/"

    def counts(self) -> dict[str, int]:
        """As DynamoDb.counts."""
        found: dict[str, int] = self._ask("GET", "counts")
        return found

    def settings(self, **told: Any) -> None:
        """Set index_lag, stale_reads, page_size or table_delay."""
        self._ask("POST", "settings", told)

    def expire(self) -> int:
        """As DynamoDb.expire."""
        return int(self._ask("POST", "expire", {}))


class Control(_Control):
    """A Sandbox at `url`; `dynamodb` is the DynamoDb that it has."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.dynamodb = DynamoDbControl(url)

    def live_instances(
        self, tags: Mapping[str, str] | None = None, /, **more: str
    ) -> dict[str, dict[str, Any]]:
        """As Sandbox.live_instances."""
        wanted = {**(tags or {}), **more}
        found: dict[str, dict[str, Any]] = self._ask("GET", "instances")
        return {
            instance_id: truth
            for instance_id, truth in found.items()
            if wanted.items() <= truth["tags"].items()
        }

    def terminate_behind_back(self, ids: Iterable[str]) -> None:
        """As Sandbox.terminate_behind_back."""
        self._ask("POST", "terminate", {"ids": list(ids)})

    def stop_behind_back(self, ids: Iterable[str]) -> None:
        """As Sandbox.stop_behind_back."""
        self._ask("POST", "stop", {"ids": list(ids)})

    def protect(self, ids: Iterable[str], on: bool = True) -> None:
        """As Sandbox.protect."""
        self._ask("POST", "protect", {"ids": list(ids), "on": on})

    def make_network(self, subnets: Mapping[str, str], **more: Any) -> None:
        """As Sandbox.make_network."""
        self._ask("POST", "network", {"subnets": dict(subnets), **more})

    def put_parameter(self, name: str, value: str, **more: str) -> None:
        """As Sandbox.put_parameter."""
        self._ask("POST", "put_parameter", {"name": name, "value": value, **more})

    def create_queue(self, name: str, *, events: bool = False, **more: str) -> str:
        """As Sandbox.create_queue."""
        return str(self._ask("POST", "create_queue", {"name": name, "events": events, **more}))

    def send_message(self, queue_url: str, body: str) -> str:
        """As Sandbox.send_message."""
        return str(self._ask("POST", "send_message", {"queue_url": queue_url, "body": body}))

    def deny(self, action: str, account: str | None = None) -> None:
        """As Sandbox.deny."""
        self._ask("POST", "deny", {"action": action, "account": account})

    def allow(self, action: str, account: str | None = None) -> None:
        """As Sandbox.allow."""
        self._ask("POST", "allow", {"action": action, "account": account})

    def set_capacity(self, limit: int | None, **pool: str) -> None:
        """As Sandbox.set_capacity."""
        self._ask("POST", "set_capacity", {"limit": limit, **pool})

    def interrupt(self, ids: Iterable[str], **when: float) -> None:
        """As Sandbox.interrupt."""
        self._ask("POST", "interrupt", {"ids": list(ids), **when})

    def leftovers(self, tags: Mapping[str, str] | None = None) -> dict[str, list[str]]:
        """As Sandbox.leftovers."""
        found: dict[str, list[str]] = self._ask("POST", "leftovers", {"tags": dict(tags or {})})
        return found


class SandboxProcess:
    """A sandbox or DynamoDB alone in its own process, stopped at the end of the `with` block.

    The process ends by itself when this one does: its standard input closes then.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self._process = process
        self.pid = process.pid
        self.url = f"http://127.0.0.1:{port}"
        self.control = Control(self.url)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process; nothing when it has ended."""
        _end(self._process)


def start_process(
    *,
    region: str = "us-east-1",
    quotas: str = "generous",
    visibility_lag: float = 0.0,
    boot_time: float = 0.0,
    shutdown_time: float = 0.0,
    token_lifetime: float = 24 * 3600.0,
    fleet_delay: float = 0.0,
    fleet_retry: float = 30.0,
    strict_ids: bool = False,
    accounts: Mapping[str, str] | None = None,
    allow_kill: bool = False,
) -> SandboxProcess:
    """Start a sandbox in a child process, and return when it listens.

    `quotas` is "generous" or "aws"; times are in seconds; see Sandbox and serve. Raises
    RuntimeError when the child does not come up.
    """
    command = [sys.executable, "-m", "infrastructure.sandbox.server", "--region", region]
    command += ["--quotas", quotas, "--visibility-lag", str(visibility_lag)]
    command += ["--boot-time", str(boot_time), "--shutdown-time", str(shutdown_time)]
    command += ["--token-lifetime", str(token_lifetime)]
    command += ["--fleet-delay", str(fleet_delay), "--fleet-retry", str(fleet_retry)]
    command += ["--accounts", json.dumps(dict(accounts or {}))]
    command += ["--strict-ids"] * strict_ids + ["--allow-kill"] * allow_kill
    return _started(command)


def start_dynamodb(
    *,
    region: str = "us-east-1",
    index_lag: float = 0.0,
    stale_reads: bool = False,
    table_delay: float = 0.0,
    allow_kill: bool = False,
) -> SandboxProcess:
    """Start DynamoDB alone in a child process, which then need not import moto.

    See DynamoDb for the settings; tell it more by `control.dynamodb`. Raises RuntimeError when
    the child does not come up.
    """
    command = [sys.executable, "-m", "infrastructure.sandbox.server", "--region", region]
    command += ["--only-dynamodb", "--allow-kill"] if allow_kill else ["--only-dynamodb"]
    process = _started(command)
    process.control.dynamodb.settings(
        index_lag=index_lag, stale_reads=stale_reads, table_delay=table_delay
    )
    return process


def _started(command: list[str]) -> SandboxProcess:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], START_LIMIT)
    line = process.stdout.readline() if readable else b""
    if not line:
        _end(process)
        raise RuntimeError(f"the sandbox process did not start (exit code {process.returncode})")
    return SandboxProcess(process, json.loads(line)["port"])


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main(arguments: list[str] | None = None) -> None:
    """Serve a sandbox until standard input ends; prints {"port": N, "url": "..."} when ready."""
    parser = argparse.ArgumentParser(prog="python -m infrastructure.sandbox.server")
    parser.add_argument("--port", type=int, default=0, help="0 lets the system choose (default)")
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--quotas", choices=["generous", "aws"], default="generous")
    for name, default in (
        ("visibility-lag", 0.0),
        ("boot-time", 0.0),
        ("shutdown-time", 0.0),
        ("token-lifetime", 24 * 3600.0),
        ("fleet-delay", 0.0),
        ("fleet-retry", 30.0),
    ):
        parser.add_argument(f"--{name}", type=float, default=default, metavar="SECONDS")
    parser.add_argument("--strict-ids", action="store_true", help="refuse unknown ids")
    parser.add_argument(
        "--accounts", type=json.loads, default={}, help='whose keys are: {"AKIA...": "1111..."}'
    )
    parser.add_argument("--allow-kill", action="store_true", help='permit the fault "kill"')
    parser.add_argument("--only-dynamodb", action="store_true", help="serve nothing else")
    options = parser.parse_args(arguments)
    sandbox = DynamoDb(region=options.region) if options.only_dynamodb else _whole(options)
    server = listen(sandbox, port=options.port, allow_kill=options.allow_kill)
    port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"port": port, "url": f"http://127.0.0.1:{port}"}), flush=True)
    try:
        sys.stdin.buffer.read()
    except KeyboardInterrupt:
        pass
    server.server_close()


def _whole(options: argparse.Namespace) -> Sandbox:
    from .ec2 import Quotas, Sandbox

    return Sandbox(
        region=options.region,
        quotas=Quotas.aws() if options.quotas == "aws" else Quotas.generous(),
        visibility_lag=options.visibility_lag,
        boot_time=options.boot_time,
        shutdown_time=options.shutdown_time,
        token_lifetime=options.token_lifetime,
        fleet_delay=options.fleet_delay,
        fleet_retry=options.fleet_retry,
        strict_ids=options.strict_ids,
        accounts=options.accounts,
    )


if __name__ == "__main__":
    main()
