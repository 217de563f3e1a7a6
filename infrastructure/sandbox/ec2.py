"""The sandbox: EC2 in one process, on any clock, with AWS's promises and with faults on request."""

from __future__ import annotations

import heapq
import io
import itertools
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import (
    ConnectionClosedError,
    EndpointConnectionError,
    ReadTimeoutError,
)

from . import instances
from .buckets import Buckets, Quotas
from .faults import Fault
from .region import LIVE_STATES, REGIONS, USER_SHUTDOWN, Machine, Region, Timing
from .wire import (
    AwsError,
    AwsRequest,
    AwsResponse,
    NetworkFault,
    answer,
    caller_identity,
    error_answer,
    filters,
    is_true,
    numbered,
    parameters,
    region_of,
)

__all__ = ["AwsRequest", "AwsResponse", "Call", "Fault", "NetworkFault", "Quotas", "Sandbox"]

ACCOUNT = "123456789012"
# What there is at the start, in the first zones of each region.
DEFAULT_SUBNETS = ("subnet-a", "subnet-b", "subnet-c")

# Parameters that say who calls or that a call is repeated, not what is asked.
_NOT_ASKED = frozenset({"Action", "Version", "ClientToken", "SpotFleetRequestConfig.ClientToken"})
# A parameter that names an instance which must exist.
_NAMES_INSTANCE = re.compile(r"(?:InstanceId|ResourceId)(?:\.\d+)?")
# Calls that launch in what they name, and calls that only write it down for later.
_LAUNCHES = frozenset({"CreateFleet", "RequestSpotFleet", "RequestSpotInstances"})
_TEMPLATES = frozenset({"CreateLaunchTemplate", "CreateLaunchTemplateVersion"})
# ec2-api-idempotency.html: up to 64 ASCII characters.
_TOKEN_MAX = 64

# Faults of the network that come before anything is done.
_UNDONE: dict[str, Literal["timeout", "reset", "refused"]] = {
    "hang": "timeout",
    "reset_before": "reset",
    "refused": "refused",
}


@dataclass
class Call:
    """One request as the sandbox received it.

    `at` is the clock's time in seconds, `params` the flat request parameters without Action and
    Version. `outcome` is "ok", AWS's error code, or the kind of the fault that hit it.
    """

    action: str
    at: float
    params: dict[str, str]
    region: str
    client_token: str | None
    outcome: str = ""


@dataclass
class _Remembered:
    """A successful call with a client token: what was asked, when, and the answer anew."""

    asked: dict[str, str]
    at: float
    again: Callable[[str], AwsResponse]


@dataclass
class _Place:
    """All the state of one region."""

    region: Region
    buckets: Buckets = field(default_factory=Buckets)
    tokens: dict[tuple[str, str], _Remembered] = field(default_factory=dict)


class Sandbox:
    """EC2 (and sts GetCallerIdentity) of one account, in memory.

    `clock` gives seconds since the epoch; nothing waits and nothing runs by itself: what became
    due is done when the next request or question comes. Times are in seconds: a new instance is
    not found for `visibility_lag`, is pending for `boot_time`, and takes `shutdown_time` to stop
    or to terminate; a client token is remembered for `token_lifetime`. With `strict_ids` the ids
    of images, subnets and security groups must exist; without, an unknown one is made when it is
    first named. Credentials are not checked. Two sandboxes share nothing. Safe in threads.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        *,
        region: str = "us-east-1",
        quotas: Quotas | None = None,
        visibility_lag: float = 0.0,
        boot_time: float = 0.0,
        shutdown_time: float = 0.0,
        token_lifetime: float = 24 * 3600.0,
        strict_ids: bool = False,
        account: str = ACCOUNT,
    ) -> None:
        self.region = region
        self.account = account
        self.calls: list[Call] = []
        self._clock = clock
        self._quotas = quotas or Quotas.generous()
        self._lag = visibility_lag
        self._timing = Timing(boot_time, shutdown_time)
        self._token_lifetime = token_lifetime
        self._strict_ids = strict_ids
        self._now = clock()
        self._agenda: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._requests = itertools.count(1)
        self._faults: list[Fault] = []
        self._places: dict[str, _Place] = {}
        self._lock = threading.RLock()

    # -- requests ------------------------------------------------------------------------------

    def handle(self, request: AwsRequest) -> AwsResponse:
        """Carry a request out and answer it. Raises NetworkFault where a fault says so."""
        with self._lock:
            self._advance()
            params = parameters(request)
            action = params.get("Action", "")
            region = region_of(request, self.region)
            call = Call(
                action,
                self._now,
                {k: v for k, v in params.items() if k not in ("Action", "Version")},
                region,
                _token(params),
            )
            self.calls.append(call)
            armed = [fault for fault in self._faults if fault.arms(action, call.params)]
            caps = [fault for fault in armed if fault.kind == "cap"]
            fault = next((fault for fault in armed if fault.kind != "cap"), None)
            if fault is None:
                response, call.outcome = self._carry_out(region, action, params, caps)
                return response
            fault.fired += 1
            call.outcome = fault.kind
            return self._fail(fault, region, action, params, caps)

    def attach(self, client: Any) -> None:
        """Make a botocore ec2 or sts client call this sandbox instead of the network.

        Network faults are raised at once, as the exceptions botocore raises for a real network.
        """
        service = client.meta.service_model.service_name
        if service not in ("ec2", "sts"):
            raise ValueError(f"the sandbox speaks ec2 and sts, not {service}")

        def send(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
            try:
                response = self.handle(_from_botocore(request))
            except NetworkFault as fault:
                raise _as_botocore(fault, request) from fault
            headers: Any = dict(response.headers)
            return AWSResponse(request.url, response.status, headers, _Raw(response.body))

        client.meta.events.register_first("before-send", send)

    # -- faults ----------------------------------------------------------------------------------

    def add_fault(
        self, kind: str, *, action: str, from_call: int = 1, times: int = 1, **params: Any
    ) -> Fault:
        """Make calls of `action` ("*": any) fail, from the nth from now on, `times` times.

        times=-1 is until cleared. Of several faults that hit a call the first added counts;
        `cap` goes together with any. Kinds:

        throttle       RequestLimitExceeded (503), nothing done
        error          code=, message=, status=400; nothing done
        e500, e503     InternalError, Unavailable; nothing done, or with e500 after=True: done
        hang           nothing done; the client's read times out
        slow           done; the client's read times out; late=SECONDS: done only when the clock
                       has gone so far on
        reset_before   nothing done; the connection is cut
        refused        nothing done; there is no connection
        lost_response  done; the connection is cut before the answer
        cap            RunInstances launches at most limit=; subnet=, instance_type= name a pool
        kill           done; then then() is called, or pid= killed, before the answer

        Any kind takes match={parameter: value} and where=callable(params) to choose calls.
        Raises ValueError for an unknown kind or parameter.
        """
        fault = Fault(kind, action, from_call, times, params)
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear_faults(self) -> None:
        """Forget all faults."""
        with self._lock:
            for fault in self._faults:
                fault.clear()
            self._faults.clear()

    # -- the truth, and what others do ------------------------------------------------------------

    def live_instances(
        self, tags: Mapping[str, str] | None = None, /, **more: str
    ) -> dict[str, dict[str, Any]]:
        """Every pending, running, stopping or stopped instance with these tags, lag or not.

        id -> state, tags, launch_time (seconds of the clock), subnet, zone, type,
        private_dns_name, private_ip, region, client_token.
        """
        wanted = {**(tags or {}), **more}
        with self._lock:
            self._advance()
            found = {}
            for place in self._places.values():
                for machine in place.region.machines.values():
                    has = place.region.tags.get(machine.id, {})
                    if machine.state in LIVE_STATES and all(
                        has.get(key) == value for key, value in wanted.items()
                    ):
                        found[machine.id] = _truth(place.region, machine)
            return found

    def terminate_behind_back(self, ids: Iterable[str], reason: str = USER_SHUTDOWN) -> None:
        """Terminate instances as if somebody else did (or AWS, taking spot instances back)."""
        with self._lock:
            self._advance()
            for region, machine in self._find(ids):
                region.terminate(machine, reason)

    def stop_behind_back(self, ids: Iterable[str]) -> None:
        """Stop instances as if somebody else did."""
        with self._lock:
            self._advance()
            for region, machine in self._find(ids):
                region.stop(machine)

    def protect(self, ids: Iterable[str], on: bool = True) -> None:
        """Turn termination protection of instances on or off."""
        with self._lock:
            for _, machine in self._find(ids):
                machine.instance.disable_api_termination = on

    def make_network(
        self, subnets: Mapping[str, str], *, region: str | None = None, prefix: int = 18
    ) -> None:
        """Make subnets with chosen ids: id -> zone, by name ("us-east-1a") or letter ("a").

        Those that are there already stay. `prefix` is their size, 18 (16,379 addresses) or
        longer. Raises ValueError for a zone that is not there, or an id in another zone.
        """
        with self._lock:
            place = self._place(region or self.region)
            for subnet_id, zone in subnets.items():
                place.region.add_subnet(subnet_id, zone, prefix)

    def subnets(self, region: str | None = None) -> dict[str, str]:
        """The subnets made so far: id -> zone name."""
        with self._lock:
            return self._place(region or self.region).region.networks()

    # -- how a request is carried out ----------------------------------------------------------

    def _fail(
        self,
        fault: Fault,
        region: str,
        action: str,
        params: dict[str, str],
        caps: list[Fault],
    ) -> AwsResponse:
        sts = action == "GetCallerIdentity"
        if fault.kind in _UNDONE:
            raise NetworkFault(_UNDONE[fault.kind])
        if (error := _answered(fault)) is not None and not fault.params.get("after"):
            return error_answer(error, self._request_id(), sts=sts)
        if fault.kind == "slow" and (late := fault.params.get("late")):
            self._schedule(self._now + late, partial(self._carry_out, region, action, params, caps))
            raise NetworkFault("timeout")
        response, _ = self._carry_out(region, action, params, caps)
        if fault.kind == "slow":
            raise NetworkFault("timeout")
        if fault.kind == "lost_response":
            raise NetworkFault("reset")
        if fault.kind == "kill":
            if (then := fault.params.get("then")) is not None:
                then()
            else:
                os.kill(int(fault.params["pid"]), signal.SIGKILL)
            return response
        assert error is not None
        return error_answer(error, self._request_id(), sts=sts)

    def _carry_out(
        self, region: str, action: str, params: dict[str, str], caps: list[Fault]
    ) -> tuple[AwsResponse, str]:
        request_id = self._request_id()
        try:
            response = self._serve(self._place(region), action, params, caps, request_id)
        except AwsError as error:
            return (
                error_answer(error, request_id, sts=action == "GetCallerIdentity"),
                error.code,
            )
        return response, "ok" if response.status < 300 else _code(response)

    def _serve(
        self,
        place: _Place,
        action: str,
        params: dict[str, str],
        caps: list[Fault],
        request_id: str,
    ) -> AwsResponse:
        if not action:
            raise AwsError("MissingAction", "The request must contain the parameter Action")
        bucket, limit = self._quotas.request_bucket(action, params)
        if not place.buckets.take(bucket, limit, 1, self._now):
            raise _throttled()
        if action == "GetCallerIdentity":
            return caller_identity(self.account, request_id)
        if is_true(params, "DryRun"):
            # Checked permissions are all of a dry run, and the sandbox permits everything.
            raise AwsError(
                "DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412
            )
        token = _token(params)
        if token is None:
            return self._do(place, action, params, caps, request_id)(request_id)
        if len(token) > _TOKEN_MAX:
            message = f"A client token has at most {_TOKEN_MAX} characters"
            raise AwsError("InvalidParameterValue", message)
        return self._once(place, action, token, params, caps, request_id)

    def _once(
        self,
        place: _Place,
        action: str,
        token: str,
        params: dict[str, str],
        caps: list[Fault],
        request_id: str,
    ) -> AwsResponse:
        """A call with a client token: done once, answered again ("Ensuring idempotency",
        EC2 Developer Guide, ec2-api-idempotency.html)."""
        asked = {name: value for name, value in params.items() if name not in _NOT_ASKED}
        before = place.tokens.get((action, token))
        if before is not None and self._now - before.at < self._token_lifetime:
            if before.asked != asked:
                raise AwsError(
                    "IdempotentParameterMismatch",
                    "Arguments on this idempotent request are inconsistent with arguments used "
                    "in previous request(s).",
                )
            return before.again(request_id)
        again = self._do(place, action, params, caps, request_id)
        response = again(request_id)
        if response.status < 300:
            place.tokens[(action, token)] = _Remembered(asked, self._now, again)
        return response

    def _do(
        self,
        place: _Place,
        action: str,
        params: dict[str, str],
        caps: list[Fault],
        request_id: str,
    ) -> Callable[[str], AwsResponse]:
        """Do what is asked; the result renders the answer, now and at every replay."""
        region = place.region
        if self._strict_ids and (bad := instances.malformed(numbered(params, "InstanceId"))):
            raise bad
        self._take_resources(place, action, params)
        if action == "RunInstances":
            launched = instances.run_instances(region, params, _capacity(caps))
            return lambda i: answer(action, instances.reservation_answer(region, launched), i)
        content = None
        if action in ("DescribeInstances", "DescribeInstanceStatus"):
            instances.check_filters(filters(params))
        if action == "DescribeInstances":
            content = instances.describe_instances(region, params, self._visible)
        elif action == "DescribeInstanceStatus":
            content = instances.describe_instance_status(region, params, self._visible)
        elif action == "TerminateInstances":
            content = instances.terminate_instances(region, params, self._visible)
        if content is not None:
            return lambda i: answer(action, content, i)
        response = self._pass_to_moto(region, action, params)
        return lambda _: response

    def _take_resources(self, place: _Place, action: str, params: Mapping[str, str]) -> None:
        """Draw one token for each instance asked for. Raises RequestLimitExceeded."""
        if action == "TerminateInstances":
            name, limit = "terminations", self._quotas.terminations
            count = len(numbered(params, "InstanceId"))
        elif action in ("RunInstances", "CreateFleet"):
            name, limit = "launches", self._quotas.launches
            asked = params.get("MaxCount") or params.get(
                "TargetCapacitySpecification.TotalTargetCapacity", "0"
            )
            count = int(asked) if asked.isdigit() else 0
        else:
            return
        if not place.buckets.take(name, limit, count, self._now):
            raise _throttled()

    def _pass_to_moto(self, region: Region, action: str, params: Mapping[str, str]) -> AwsResponse:
        named = [
            value
            for name, value in params.items()
            if _NAMES_INSTANCE.fullmatch(name) and value.startswith("i-")
        ]
        instances.named(region, named, self._visible)
        if action == "DescribeImages":
            images = numbered(params, "ImageId")
            if images:
                region.know_images(images)
            else:
                region.load_public_images()
        elif action == "DescribeSubnets":
            region.know_subnets(numbered(params, "SubnetId"))
        elif action == "DescribeSecurityGroups":
            region.know_groups(numbered(params, "GroupId"))
        elif action in _LAUNCHES or (action in _TEMPLATES and not self._strict_ids):
            instances.know(region, params)
        return region.moto(params)

    # -- parts ---------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Do what became due, in the order of its time, each at its own time."""
        now = self._clock()
        while self._agenda and self._agenda[0][0] <= now:
            self._now, _, step = heapq.heappop(self._agenda)
            step()
        self._now = now

    def _schedule(self, due: float, step: Callable[[], object]) -> None:
        heapq.heappush(self._agenda, (due, next(self._order), step))

    def _visible(self, machine: Machine) -> bool:
        return self._now - machine.launched_at >= self._lag

    def _place(self, name: str) -> _Place:
        if name not in REGIONS:
            raise AwsError("InvalidParameterValue", f"EC2 has no region called {name}")
        if name not in self._places:
            region = Region(
                name,
                self.account,
                now=lambda: self._now,
                schedule=self._schedule,
                timing=self._timing,
                strict_ids=self._strict_ids,
            )
            for subnet_id, zone in zip(DEFAULT_SUBNETS, region.zones_here, strict=False):
                region.add_subnet(subnet_id, zone)
            self._places[name] = _Place(region)
        return self._places[name]

    def _find(self, ids: Iterable[str]) -> Iterator[tuple[Region, Machine]]:
        for instance_id in ids:
            for place in self._places.values():
                if instance_id in place.region.machines:
                    yield place.region, place.region.machines[instance_id]
                    break
            else:
                raise KeyError(instance_id)

    def _request_id(self) -> str:
        return f"00000000-0000-4000-8000-{next(self._requests):012d}"


class _Raw(io.BytesIO):
    """A body as botocore reads one from urllib3."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


def _token(params: Mapping[str, str]) -> str | None:
    return params.get("ClientToken") or params.get("SpotFleetRequestConfig.ClientToken") or None


def _throttled() -> AwsError:
    return AwsError("RequestLimitExceeded", "Request limit exceeded.", 503)


def _answered(fault: Fault) -> AwsError | None:
    """The AWS error that a fault answers, if it answers one."""
    match fault.kind:
        case "throttle":
            return _throttled()
        case "e500":
            return AwsError("InternalError", "An internal error has occurred.", 500)
        case "e503":
            return AwsError("Unavailable", "The service is unavailable. Please try again.", 503)
        case "error":
            code = fault.params["code"]
            message = fault.params.get("message", f"{code}, as the sandbox was told")
            return AwsError(code, message, fault.params.get("status", 400))
    return None


def _capacity(caps: list[Fault]) -> Callable[[str, str], int | None]:
    """How many instances of a pool the capacity faults leave."""

    def limit(subnet: str, instance_type: str) -> int | None:
        least = None
        for fault in caps:
            if fault.caps(subnet, instance_type):
                fault.fired += 1
                here = int(fault.params["limit"])
                least = here if least is None else min(least, here)
        return least

    return limit


def _code(response: AwsResponse) -> str:
    found = re.search(rb"<Code>([^<]+)</Code>", response.body)
    return found[1].decode() if found else f"HTTP {response.status}"


def _truth(region: Region, machine: Machine) -> dict[str, Any]:
    it = machine.instance
    return {
        "state": machine.state,
        "tags": instances.tags_of(region, machine),
        "launch_time": machine.launched_at,
        "subnet": it.subnet_id,
        "zone": machine.zone,
        "type": it.instance_type,
        "private_dns_name": it.private_dns_name,
        "private_ip": it.private_ip,
        "region": region.region_name,
        "client_token": it.client_token,
    }


def _from_botocore(request: AWSPreparedRequest) -> AwsRequest:
    body: Any = request.body
    if body is None:
        body = b""
    elif isinstance(body, str):
        body = body.encode()
    elif not isinstance(body, bytes | bytearray):
        body = body.read()
    headers = {
        str(name): value.decode() if isinstance(value, bytes) else str(value)
        for name, value in request.headers.items()
    }
    return AwsRequest(request.method, request.url, headers, bytes(body))


def _as_botocore(fault: NetworkFault, request: AWSPreparedRequest) -> Exception:
    """What botocore's URLLib3Session raises for the fault."""
    url = request.url
    match fault.kind:
        case "timeout":
            return ReadTimeoutError(endpoint_url=url, error=fault)
        case "refused":
            return EndpointConnectionError(endpoint_url=url, error=fault)
    return ConnectionClosedError(endpoint_url=url, request=request, error=fault)
