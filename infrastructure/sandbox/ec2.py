"""The sandbox: EC2 in one process, on any clock, with AWS's promises and with faults on request."""

from __future__ import annotations

import heapq
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

from . import clients, dynamodb, instance_types, instances, services, shapes, spot
from .buckets import Buckets, Quotas
from .capacity import INSUFFICIENT, Capacity, Limit
from .faults import OF_DYNAMODB, WITHIN, Fault, Faults
from .fleet import Surroundings
from .fleets import Fleets
from .groups import Groups
from .launch_templates import LaunchTemplates
from .leftovers import leftovers
from .region import LIVE_STATES, REGIONS, USER_SHUTDOWN, Machine, Region, Timing
from .spot_fleets import SpotFleets
from .sqs import Queues
from .ssm import Parameters
from .sts import Accounts, Caller
from .wire import (
    SERVICES,
    Asked,
    AwsError,
    AwsRequest,
    AwsResponse,
    NetworkFault,
    answer,
    asked_of,
    error_answer,
    filters,
    is_true,
    numbered,
)

__all__ = ["AwsRequest", "AwsResponse", "Call", "Fault", "NetworkFault", "Quotas", "Sandbox"]

ACCOUNT = "123456789012"
# What there is at the start, in the first zones of each region.
DEFAULT_SUBNETS = ("subnet-a", "subnet-b", "subnet-c")

# Parameters that say who calls or that a call is repeated, not what is asked.
_NOT_ASKED = frozenset({"Action", "Version", "ClientToken", "SpotFleetRequestConfig.ClientToken"})
# A parameter that names an instance which must exist.
_NAMES_INSTANCE = re.compile(r"(?:InstanceId|ResourceId)(?:\.\d+)?")
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
    Version. `outcome` is "ok", AWS's error code, or the kind of the fault that hit it. `service`
    is the name in the signature, `account` that of the caller's key.
    """

    action: str
    at: float
    params: dict[str, str]
    region: str
    client_token: str | None
    outcome: str = ""
    service: str = "ec2"
    account: str = ""


@dataclass
class _Remembered:
    """A successful call with a client token: what was asked, when, and the answer anew."""

    asked: dict[str, str]
    at: float
    again: Callable[[str], AwsResponse]


@dataclass
class _Place:
    """All the state of one account in one region."""

    region: Region
    parameters: Parameters
    queues: Queues
    templates: LaunchTemplates
    fleets: Fleets = field(init=False)
    spot_fleets: SpotFleets = field(init=False)
    groups: Groups = field(init=False)
    buckets: Buckets = field(default_factory=Buckets)
    tokens: dict[tuple[str, str], _Remembered] = field(default_factory=dict)


class Sandbox:
    """EC2 and the services beside it (autoscaling, ssm, sqs, sts) of some accounts, in memory.

    `clock` gives seconds since the epoch; nothing waits and nothing runs by itself: what became
    due is done when the next request or question comes. Times are in seconds: a new instance is
    not found for `visibility_lag`, is pending for `boot_time`, and takes `shutdown_time` to stop
    or to terminate; a client token is remembered for `token_lifetime`; fleets and groups launch
    `fleet_delay` after they are told and, where capacity lacked, every `fleet_retry` again. With
    `strict_ids` the ids of images, subnets and security groups must exist; without, an unknown
    one is made when it is first named. `accounts` says whose access keys are (key id ->
    account); any other key is `account`'s, and those that sts gives out are of the role's
    account until they expire. No signature is checked. Two sandboxes share nothing. Safe in
    threads.
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
        fleet_delay: float = 0.0,
        fleet_retry: float = 30.0,
        strict_ids: bool = False,
        account: str = ACCOUNT,
        accounts: Mapping[str, str] | None = None,
    ) -> None:
        self.region = region
        self.account = account
        self.calls: list[Call] = []
        # DynamoDB and Application Auto Scaling, with faults and calls of their own.
        self.dynamodb = dynamodb.DynamoDb(clock, region=region, account=account)
        # Told of every event of EventBridge's.
        self.on_event: list[Callable[[dict[str, Any]], object]] = []
        self._accounts = Accounts(account, dict(accounts or {}))
        self._clock = clock
        self._quotas = quotas or Quotas.generous()
        self._lag = visibility_lag
        self._timing = Timing(boot_time, shutdown_time)
        self._token_lifetime = token_lifetime
        self._fleet_delay = fleet_delay
        self._fleet_retry = fleet_retry
        self._strict_ids = strict_ids
        self._now = clock()
        self._agenda: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._requests = itertools.count(1)
        self._limits: dict[tuple[str | None, ...], Limit] = {}
        self._places: dict[tuple[str, str], _Place] = {}  # by account and region
        self._lock = threading.RLock()
        self._faults = Faults(self._lock)

    # -- requests ------------------------------------------------------------------------------

    def handle(self, request: AwsRequest) -> AwsResponse:
        """Carry a request out and answer it. Raises NetworkFault where a fault says so."""
        if dynamodb.is_for_dynamodb(request):
            return self.dynamodb.handle(request)
        with self._lock:
            self._advance()
            asked = asked_of(request, self.region)
            caller = self._accounts.caller(asked)
            call = Call(
                asked.action,
                self._now,
                {k: v for k, v in asked.params.items() if k not in ("Action", "Version")},
                asked.region,
                _token(asked.params),
                service=asked.service,
                account=caller.account,
            )
            self.calls.append(call)
            armed = [
                fault
                for fault in self._faults
                if fault.arms(asked.action, call.params, caller.account)
            ]
            caps = [fault for fault in armed if fault.kind in WITHIN]
            fault = next((fault for fault in armed if fault.kind not in WITHIN), None)
            if fault is None:
                response, call.outcome = self._carry_out(asked, caller, caps)
                return response
            fault.fired += 1
            call.outcome = fault.kind
            return self._fail(fault, asked, caller, caps)

    def attach(self, client: Any) -> None:
        """Make a botocore client of one of these services call this sandbox, not the network.

        Network faults are raised at once, as the exceptions botocore raises for a real network.
        """
        service = client.meta.service_model.service_name
        known = (*SERVICES, *dynamodb.SERVICES)
        if service not in known:
            raise ValueError(f"the sandbox speaks {', '.join(known)}, not {service}")
        clients.attach(client, self.handle)

    # -- faults ----------------------------------------------------------------------------------

    def add_fault(
        self, kind: str, *, action: str, from_call: int = 1, times: int = 1, **params: Any
    ) -> Fault:
        """Make calls of `action` ("*": any) fail, from the nth from now on, `times` times.

        times=-1 is until cleared. Of several faults that hit a call the first added counts;
        `cap` and `fleet_errors` go together with any. Kinds:

        throttle       RequestLimitExceeded (503), nothing done
        error          code=, message=, status=400; nothing done
        e500, e503     InternalError, Unavailable; nothing done, or with e500 after=True: done
        hang           nothing done; the client's read times out
        slow           done; the client's read times out; late=SECONDS: done only when the clock
                       has gone so far on
        reset_before   nothing done; the connection is cut
        refused        nothing done; there is no connection
        lost_response  done; the connection is cut before the answer
        cap            the call (RunInstances, CreateFleet, CreateAutoScalingGroup ...; also each
                       later try of a fleet or group it made) launches at most limit=; subnet=,
                       instance_type=, market="spot" or "on-demand" name pools; code= is the
                       error, InsufficientInstanceCapacity unless given
        fleet_errors   CreateFleet (instant) answers 200 and codes=[...], one error for each
                       override; launch=0 machines are launched all the same
        kill           done; then then() is called, or pid= killed, before the answer

        Any kind takes account=, match={parameter: value} and where=callable(params) to choose
        calls. Errors are answered as the service called names and shapes them.
        Raises ValueError for an unknown kind or parameter.
        """
        if kind in OF_DYNAMODB:
            raise ValueError(f"fault {kind!r} is DynamoDB's: tell it to `dynamodb`")
        return self._faults.add(Fault(kind, action, from_call, times, params))

    def clear_faults(self) -> None:
        """Forget all faults."""
        self._faults.clear()

    def set_capacity(
        self,
        limit: int | None,
        *,
        subnet: str | None = None,
        instance_type: str | None = None,
        market: str | None = None,
        code: str = INSUFFICIENT,
    ) -> None:
        """Let at most `limit` machines of the pools named live, until changed; None: any number.

        Subnet, type and market ("spot" or "on-demand") that are not given are any. `code` is what
        a launch of more hears, in RunInstances' error and in the errors of fleets and groups.
        """
        told = Limit(limit or 0, subnet, instance_type, market, code)
        with self._lock:
            if limit is None:
                self._limits.pop(told.pools, None)
            else:
                self._limits[told.pools] = told

    # -- the truth, and what others do ------------------------------------------------------------

    def live_instances(
        self, tags: Mapping[str, str] | None = None, /, **more: str
    ) -> dict[str, dict[str, Any]]:
        """Every pending, running, stopping or stopped instance with these tags, lag or not.

        id -> state, tags, launch_time (seconds of the clock), subnet, zone, type,
        private_dns_name, private_ip, region, account, client_token, lifecycle ("spot" or
        "on-demand").
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

    def interrupt(
        self, ids: Iterable[str], notice: float = 120.0, rebalance_before: float = 0.0
    ) -> None:
        """Let AWS take spot instances back, as spot-interruptions.html says.

        `on_event` is told of the interruption warning `notice` seconds before they terminate (0:
        of none), and of a rebalance recommendation so many seconds before that (0: of none).
        Raises KeyError for an unknown instance, ValueError for one that is not a spot instance.
        """
        with self._lock:
            self._advance()
            for region, machine in list(self._find(ids)):
                if machine.spot is None:
                    raise ValueError(f"{machine.id} is not a spot instance")
                if rebalance_before > 0:
                    self._tell(spot.recommendation, region, machine)
                warned = self._now + rebalance_before
                if notice > 0:
                    self._schedule(warned, partial(self._warn, region, machine))
                end = partial(region.terminate, machine, spot.INTERRUPTED)
                self._schedule(warned + notice, end)
            self._advance()

    def leftovers(self, tags: Mapping[str, str]) -> dict[str, list[str]]:
        """Ids by kind of what has these tags, is no instance, and should not be there any more.

        volumes and network_interfaces without a living machine, launch_templates, fleets and
        spot_fleets that are not deleted, empty_fleets (instant, none of it lives) that are not
        deleted, spot_requests without an instance, groups (of Auto Scaling, by name) that are not
        deleted.
        """
        found: dict[str, list[str]] = {}
        with self._lock:
            self._advance()
            for place in self._places.values():
                here = leftovers(
                    place.region, place.templates, place.fleets, place.spot_fleets, tags
                )
                if groups := place.groups.leftovers(tags):
                    here["groups"] = groups
                for kind, ids in here.items():
                    found.setdefault(kind, []).extend(ids)
        return found

    def protect(self, ids: Iterable[str], on: bool = True) -> None:
        """Turn termination protection of instances on or off."""
        with self._lock:
            for _, machine in self._find(ids):
                machine.instance.disable_api_termination = on

    def make_network(
        self,
        subnets: Mapping[str, str],
        *,
        region: str | None = None,
        account: str | None = None,
        prefix: int = 18,
    ) -> None:
        """Make subnets with chosen ids: id -> zone, by name ("us-east-1a") or letter ("a").

        Those that are there already stay. `prefix` is their size, 18 (16,379 addresses) or
        longer. Raises ValueError for a zone that is not there, or an id in another zone.
        """
        with self._lock:
            place = self._place(region or self.region, account)
            for subnet_id, zone in subnets.items():
                place.region.add_subnet(subnet_id, zone, prefix)

    def subnets(self, region: str | None = None, account: str | None = None) -> dict[str, str]:
        """The subnets made so far: id -> zone name."""
        with self._lock:
            return self._place(region or self.region, account).region.networks()

    def put_parameter(
        self, name: str, value: str, *, region: str | None = None, account: str | None = None
    ) -> None:
        """Make an SSM parameter, or a new version of it."""
        with self._lock:
            self._advance()
            place = self._place(region or self.region, account)
            place.parameters.put(name, value, self._now)

    def create_queue(
        self,
        name: str,
        *,
        events: bool = False,
        region: str | None = None,
        account: str | None = None,
    ) -> str:
        """Make an SQS queue and return its URL.

        With `events`, what EventBridge has from EC2 in that account and region is sent to it.
        """
        with self._lock:
            self._advance()
            place = self._place(region or self.region, account)
            if events:
                self.on_event.append(place.queues.take_events(name))
            return place.queues.create(name)

    def send_message(self, queue_url: str, body: str) -> str:
        """Put a message into a queue and return its id. Raises ValueError for no such queue."""
        with self._lock:
            self._advance()
            for place in self._places.values():
                if (message := place.queues.send(queue_url, body)) is not None:
                    return message
            raise ValueError(f"there is no queue {queue_url}")

    def deny(self, action: str, account: str | None = None) -> None:
        """Refuse calls as IAM does: of `action` ("CreateFleet", "ec2:CreateFleet", "ssm:*", "*"),
        of all accounts or one."""
        with self._lock:
            self._accounts.deny(action, account)

    def allow(self, action: str, account: str | None = None) -> None:
        """Take a denial back; the words must be the same."""
        with self._lock:
            self._accounts.allow(action, account)

    # -- how a request is carried out ----------------------------------------------------------

    def _fail(
        self,
        fault: Fault,
        asked: Asked,
        caller: Caller,
        caps: list[Fault],
    ) -> AwsResponse:
        if fault.kind in _UNDONE:
            raise NetworkFault(_UNDONE[fault.kind])
        error = services.fault_error(fault, asked.service)
        if error is not None and not fault.params.get("after"):
            return error_answer(error, self._request_id(), asked.service)
        if fault.kind == "slow" and (late := fault.params.get("late")):
            self._schedule(self._now + late, partial(self._carry_out, asked, caller, caps))
            raise NetworkFault("timeout")
        response, _ = self._carry_out(asked, caller, caps)
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
        return error_answer(error, self._request_id(), asked.service)

    def _carry_out(
        self, asked: Asked, caller: Caller, caps: list[Fault]
    ) -> tuple[AwsResponse, str]:
        request_id = self._request_id()
        try:
            response = self._serve(asked, caller, caps, request_id)
        except AwsError as error:
            return error_answer(error, request_id, asked.service), error.code
        return response, "ok" if response.status < 300 else _code(response)

    def _serve(
        self, asked: Asked, caller: Caller, caps: list[Fault], request_id: str
    ) -> AwsResponse:
        action, params = asked.action, asked.params
        if not action:
            raise AwsError("MissingAction", "The request must contain the parameter Action")
        self._accounts.check(asked, caller, self._now)
        place = self._place(asked.region, caller.account)
        # The other services' buckets are not published; only a test's own limits hold for them.
        if asked.service == "ec2" or action in self._quotas.requests:
            bucket, limit = self._quotas.request_bucket(action, params)
            if not place.buckets.take(bucket, limit, 1, self._now):
                raise services.throttled(asked.service)
        if asked.service == "sts":
            return services.answer_sts(self._accounts, asked, caller, self._now, request_id)
        if is_true(params, "DryRun"):
            # Checked permissions are all of a dry run, and the sandbox permits everything.
            raise AwsError(
                "DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412
            )
        token = _token(params)
        if token is None:
            return self._do(place, asked, caps, request_id)(request_id)
        if len(token) > _TOKEN_MAX:
            message = f"A client token has at most {_TOKEN_MAX} characters"
            raise AwsError("InvalidParameterValue", message)
        return self._once(place, token, asked, caps, request_id)

    def _once(
        self, place: _Place, token: str, request: Asked, caps: list[Fault], request_id: str
    ) -> AwsResponse:
        """A call with a client token: done once, answered again ("Ensuring idempotency",
        EC2 Developer Guide, ec2-api-idempotency.html)."""
        action, params = request.action, request.params
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
        again = self._do(place, request, caps, request_id)
        response = again(request_id)
        if response.status < 300:
            place.tokens[(action, token)] = _Remembered(asked, self._now, again)
        return response

    def _do(
        self, place: _Place, asked: Asked, caps: list[Fault], request_id: str
    ) -> Callable[[str], AwsResponse]:
        """Do what is asked; the result renders the answer, now and at every replay."""
        if asked.service != "ec2":
            return services.answer_elsewhere(asked, place.groups, place.parameters, place.queues)
        region, action, params = place.region, asked.action, asked.params
        if self._strict_ids and (bad := instances.malformed(numbered(params, "InstanceId"))):
            raise bad
        self._take_resources(place, action, params)
        if action == "CreateFleet":
            forced = next((fault for fault in caps if fault.kind == "fleet_errors"), None)
            made = place.fleets.create(params, self._capacity(region, caps), forced)
            return lambda i: answer(action, made, i)
        if action == "RunInstances":
            merged = place.templates.merged(shapes.read(action, params))
            capacity = self._capacity(region, caps)
            launched = instances.run_instances(region, merged, capacity)
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
        elif action == "DescribeInstanceTypes":
            content = instance_types.describe(region, params)
        else:
            parts = (place.templates.answer, place.fleets.answer, place.spot_fleets.answer)
            for part in (*parts, partial(spot.answer, region)):
                if (content := part(action, params)) is not None:
                    break
        if content is not None:
            return lambda i: answer(action, content, i)
        response = self._pass_to_moto(region, action, params)
        return lambda _: response

    def _take_resources(self, place: _Place, action: str, params: Mapping[str, str]) -> None:
        """Draw one token for each instance asked for. Raises RequestLimitExceeded."""
        if action == "TerminateInstances":
            name, limit = "terminations", self._quotas.terminations
            count = len(numbered(params, "InstanceId"))
        elif action == "RunInstances":
            # Fleets and groups draw theirs when they launch.
            name, limit = "launches", self._quotas.launches
            count = int(params["MaxCount"]) if params.get("MaxCount", "").isdigit() else 0
        else:
            return
        if not place.buckets.take(name, limit, count, self._now):
            raise services.throttled("ec2")

    def _draw_launches(self, place: _Place, least: int, most: int) -> int:
        """Draw tokens of instances: up to `most`, or none and 0 when there are not `least`."""
        limit = self._quotas.launches
        return place.buckets.take_between("launches", limit, least, most, self._now)

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
        return region.moto(params)

    # -- parts ---------------------------------------------------------------------------------

    def _capacity(self, region: Region, caps: Iterable[Fault]) -> Capacity:
        """What a call may launch under the faults that hit it."""
        return Capacity(region, self._limits.values(), [c for c in caps if c.kind == "cap"])

    def capacity(self, region: Region, action: str, params: Mapping[str, str]) -> Capacity:
        """What a fleet or a group may launch in a try on the clock.

        Capacity faults count it as a call of `action`, the one that made it, with `params`.
        """
        account = str(region.account_id)
        caps = [
            fault
            for fault in self._faults
            if fault.kind == "cap" and fault.arms(action, params, account)
        ]
        return self._capacity(region, caps)

    def _warn(self, region: Region, machine: Machine) -> None:
        if machine.spot is not None and machine.state in LIVE_STATES:
            machine.spot.marked = True
            self._tell(spot.warning, region, machine)

    def _tell(
        self,
        event: Callable[[Region, Machine, float, str], dict[str, Any]],
        region: Region,
        machine: Machine,
    ) -> None:
        """Hand an event of EventBridge's to those who listen."""
        if self.on_event:
            made = event(region, machine, self._now, self._request_id())
            for listener in self.on_event:
                listener(made)

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

    def _place(self, name: str, account: str | None = None) -> _Place:
        """The state of an account (the default one) in a region."""
        if name not in REGIONS:
            raise AwsError("InvalidParameterValue", f"EC2 has no region called {name}")
        account = account or self.account
        if (account, name) not in self._places:
            region = Region(
                name,
                account,
                now=lambda: self._now,
                schedule=self._schedule,
                timing=self._timing,
                strict_ids=self._strict_ids,
            )
            for subnet_id, zone in zip(DEFAULT_SUBNETS, region.zones_here, strict=False):
                region.add_subnet(subnet_id, zone)
            place = _Place(
                region,
                parameters=Parameters(account, name),
                queues=Queues(account, name, lambda: self._now),
                templates=LaunchTemplates(region, lambda: self._now),
            )
            around = Surroundings(
                region,
                place.templates,
                lambda: self._now,
                self._schedule,
                partial(self.capacity, region),
                partial(self._draw_launches, place),
                self._fleet_delay,
                self._fleet_retry,
            )
            place.fleets = Fleets(around)
            place.spot_fleets = SpotFleets(around)
            region.on_state = partial(self._tell, spot.state_change, region)
            region.parameter = place.parameters.value
            place.groups = Groups(around)
            self._places[(account, name)] = place
        return self._places[(account, name)]

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


def _token(params: Mapping[str, str]) -> str | None:
    return params.get("ClientToken") or params.get("SpotFleetRequestConfig.ClientToken") or None


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
        "account": str(region.account_id),
        "client_token": it.client_token,
        "lifecycle": it.lifecycle or "on-demand",
    }
