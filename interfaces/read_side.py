"""Composition root of the reads, and of HostFactory's writes: no container, nothing not used.

What a call needs is made when it asks for it, so that a read imports its store's driver and no
more.
"""

from __future__ import annotations

import os

from application.failures import (
    BrokenConfiguration,
    EventsArchivedAway,
    NotConfigured,
    StoreError,
)
from application.instants import seconds_between
from infrastructure import compiled, worker_start
from infrastructure.clock import SystemClock
from infrastructure.compiled import FLAGS_VARIABLE
from infrastructure.site import Site, site_from
from infrastructure.storage import storage_at, storage_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from application.as_of import Concern
    from application.reports import Listed
    from infrastructure.read_models.past import PastQueries
    from infrastructure.read_models.sql_queries import SqlQueries
    from infrastructure.storage import EventStore, ReadModel
    from infrastructure.telemetry.journal import Journal
    from infrastructure.telemetry.memory import MemoryLooks
    from infrastructure.telemetry.slow_statements import SlowStatements

    Find = Callable[[SqlQueries, int], Concern]
    """What of a log is of concern, up to a position."""

__all__ = [
    "FLAGS_VARIABLE",
    "METRICS_TYPE",
    "Call",
    "Site",
    "aws_calls",
    "configuration",
    "configuration_key",
    "configuration_schema",
    "example_templates",
    "export_log",
    "hindrance",
    "iam_policy",
    "instance_types_named",
    "kept_figures",
    "log_defect",
    "memory_growth",
    "memory_looks",
    "metrics_page",
    "new_metrics",
    "price_list",
    "read_templates",
    "register",
    "registered_site",
    "site_from",
    "slow_statements",
    "store_iam_policy",
    "templates_file",
    "verify_log",
    "worker_status",
]

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of `metrics_page`."""

JUST_NOW = 5.0
"""Seconds in which a living worker has said so at least twice."""


class Call:
    """One HostFactory call: its site, configuration, clock, and the store once it is opened.
    `place` is that of another store that an operator asks in the place of the instance's."""

    def __init__(
        self,
        verb: str,
        environ: Mapping[str, str],
        python: str,
        site: Site | None = None,
        place: str | None = None,
    ):
        self.verb = verb
        self.environ = environ
        self.python = python
        self.site = site or site_from(environ)
        self.clock = SystemClock()
        self.now = self.clock.now()
        self.compiled = compiled.load(self.site, environ)
        self.settings = self.compiled.settings
        self.mode: str = self.settings["worker"]["mode"]
        self.turn_wanted = False
        self.overrides: dict[str, Any] = {}
        """Parts of the write side that an inline turn takes in place of the real ones."""
        self._elsewhere = place is not None
        self.storage = (
            storage_of(self.site, self.settings)
            if place is None
            else storage_at(self.site, place, self.settings)
        )
        self.archives: Sequence[str] = ()
        """Files that have what was archived: an operator's looks read on there."""

    def places(self) -> list[str]:
        """Every account and region that is swept; what is asked of one says nothing of another."""
        provider = self.settings["provider"]
        region = provider["aws"]["region"] or ""
        accounts = provider["accounts"]
        if not accounts:
            return [f"default/{region}"]
        return [f"{name}/{account['region'] or region}" for name, account in accounts.items()]

    def read_model(self) -> ReadModel:
        """Raises StoreError."""
        return self.storage.read_model()

    def ledger(self) -> tuple[EventStore, ReadModel]:
        """The store, open for a command, and its read models. Raises StoreError."""
        return self.storage.for_command(self.clock, self.site.actor(self.verb))

    def queries(self) -> SqlQueries:
        """An operator's look at the read models; of a store that was named, although it is inert.
        Raises StoreError."""
        if self._elsewhere:
            return self.any_store()
        return self._with_archives(self.storage.queries())

    def log(self) -> SqlQueries:
        """An operator's look at the log, whatever became of the read models. Raises StoreError."""
        return self.any_store() if self._elsewhere else self._with_archives(self.storage.log())

    def any_store(self) -> SqlQueries:
        """An operator's look at a store that may be inert. Raises StoreError."""
        return self._with_archives(self.storage.any_store())

    def _with_archives(self, view: SqlQueries) -> SqlQueries:
        if self.archives:
            from infrastructure.event_store.archives import give

            give(view, self.archives)
        return view

    def past(
        self, moment: str, find: Find | None, progress: Callable[[int, int], object]
    ) -> PastQueries:
        """An operator's look at the read models as they were at a moment (`position_of`): at what
        `find` says is of concern, or at everything; `progress` is told (position, its end) when
        that takes long. Raises StoreError."""
        from application.as_of import position_at
        from infrastructure.event_store.commit import iso
        from infrastructure.read_models.past import Snapshots, part

        source = self.log()
        try:
            position = position_at(source, moment, iso(self.now[0]))
            if find is not None:
                return part(source, position, find(source, position))
            return Snapshots(self.site.state_dir + "/past", source).look(position, progress)
        except BaseException:
            source.close()
            raise

    def cover_past(self, progress: Callable[[int, int], object]) -> None:
        """Leave snapshots, so that a look at any moment is fast; `progress` as in `past`. Raises
        StoreError."""
        from contextlib import closing

        from infrastructure.read_models.past import Snapshots

        with closing(self.log()) as source:
            Snapshots(self.site.state_dir + "/past", source).cover(progress)

    def slow_statements(self) -> SlowStatements:
        """What notes in the log what takes the store long, as the `watch` of a storage."""
        from infrastructure.telemetry.slow_statements import SlowStatements

        return SlowStatements(self.journal())

    def journal(self) -> Journal:
        from infrastructure.telemetry.journal import Journal

        return Journal(self.site.log_file, self.settings["logging"])

    def note(self, facts: dict[str, object], model: ReadModel) -> None:
        """Leave for the worker what this call named, and how long it has taken; see
        `sightings.py`."""
        facts["seconds"] = round(self.clock.now()[2] - self.now[2], 4)
        self.storage.note(self.now, facts, model)

    def worker_lives(self) -> bool:
        """Whether a worker of this release or a later one has said so just now."""
        facts = worker_start.status(self.site)
        ago = worker_start.lived_ago(facts, self.now)
        if ago is None or ago >= JUST_NOW or facts.get("ended"):
            return False
        return not worker_start.is_outdated(facts)

    def look_after(self, model: ReadModel, *, wanted: bool = False) -> str:
        """See to it that something open or alive is worked on; what to tell about it.

        `wanted`: there is work beyond what is open or alive. Returns the sentences for the answer's
        message, "" when all is well.
        """
        paused = model.brake()
        told = [f"{paused[0]} is paused by an operator: {paused[1]}"] if paused else []
        told.append(self._see_to_worker(model, wanted))
        return "; ".join(sentence for sentence in told if sentence)

    def _see_to_worker(self, model: ReadModel, wanted: bool) -> str:
        if self.mode != "inline" and (self.worker_lives() or model.holder_lives()):
            return ""
        if not wanted and not model.anything_open_or_alive():
            return ""
        if self.mode == "inline":
            self.turn_wanted = True
            why = worker_start.reason(self.site, worker_start.status(self.site))
            return f"the last turn failed: {why}" if why else ""
        if self.mode == "auto":
            worker_start.start(self.site, self.python, self.environ, self.now)
        facts = worker_start.status(self.site)
        missed = self._missed(facts, model)
        if missed < worker_start.MISSED_AFTER:
            return ""
        return f"no worker has lived for {missed:.0f} s: {self._why(facts)}"

    def unattended(self, model: ReadModel) -> float:
        """Seconds for which something was open or alive and no worker looked after it; 0 while one
        does, and where the calls do it themselves."""
        if self.mode == "inline" or self.worker_lives() or model.holder_lives():
            return 0.0
        if not model.anything_open_or_alive():
            return 0.0
        return self._missed(worker_start.status(self.site), model)

    def why_unattended(self) -> str:
        """What is known of why no worker lives."""
        return self._why(worker_start.status(self.site))

    def take_wanted_turn(self) -> bool:
        """In `inline` mode, the turn that `look_after` found wanting: whether one was taken.

        Nothing of it is lost or done twice when it fails: the next call's turn goes on. Why it
        failed is in the log and in the next answer's message. Raises nothing that a turn can.
        """
        if not self.turn_wanted:
            return False
        self.turn_wanted = False
        from interfaces.inline_turn import take_turn

        return take_turn(self)

    def tell_turn(self, reason: str) -> None:
        """Leave for the next answers how the turn went: why it failed, or ""."""
        now = self.clock.now()
        facts = {"pid": os.getpid(), "boot_id": now[1], "alive": now[2], "ended": True}
        failures = 1 if reason else 0
        worker_start.write_status(self.site, {**facts, "failures": failures, "reason": reason})

    def _missed(self, facts: dict[str, Any], model: ReadModel) -> float:
        """Seconds without a living worker in which there was something for one to do."""
        ago = worker_start.lived_ago(facts, self.now)
        # None: not since this boot.
        missed = self.now[2] if ago is None else ago
        if model.anything_alive():
            return missed
        oldest = model.oldest_open()
        return 0.0 if oldest is None else min(missed, seconds_between(oldest, self.now))

    def _why(self, facts: dict[str, Any]) -> str:
        if worker_start.is_alive(self.site):
            return "one is there but has not moved"
        why = worker_start.reason(self.site, facts)
        if why:
            return why
        if self.mode == "external":
            return "worker.mode is external: is its service running?"
        if not facts.get("tried"):
            return f"{self.site.worker_status} cannot be written, so none is started"
        return "it is being started"


def verify_read_models(call: Call, progress: Any) -> dict[str, Any]:
    """Compare the read models with what the log alone makes (`application.rebuilding.verify`).
    Raises StoreError."""
    from contextlib import closing

    from application.rebuilding import verify
    from infrastructure.read_models.replica import Replica

    with closing(call.any_store()) as view, closing(Replica("", view.identity()[0])) as replica:
        return verify(view, replica, progress)


def store_errors() -> tuple[type[Exception], ...]:
    """What asking a store raises, the embedded driver's own errors (a damaged file, a failing disk)
    too."""
    from infrastructure.event_store.sqlite_driver import sqlite

    return (StoreError, sqlite.Error)


def registered_site(environ: Mapping[str, str], name: str | None) -> Site:
    """The instance that `store init` registered for this user. Raises NotConfigured."""
    from infrastructure.instances import find

    return find(environ, name)


def register(environ: Mapping[str, str], site: Site) -> str:
    """Write an instance down for this user; the path of the register."""
    from infrastructure.instances import register

    return register(environ, site)


def worker_status(call: Call) -> dict[str, object]:
    """What is known of the instance's worker; `lives` is whether a process holds its lock."""
    from infrastructure.event_store.commit import iso

    facts = worker_start.status(call.site)
    ago = worker_start.lived_ago(facts, call.now)
    return {
        "lives": worker_start.is_alive(call.site),
        "mode": call.mode,
        "pid": facts.get("pid"),
        "version": facts.get("version"),
        "last_lived_at": None if ago is None else iso(call.now[0] - ago),
        "ended": bool(facts.get("ended")),
        "reason": facts.get("reason") or None,
    }


def hindrance(call: Call) -> str:
    """Why nobody carries out what is recorded, and what to do; "" when a worker does, on this
    machine or another, or the calls do it themselves."""
    if call.mode == "inline" or worker_start.is_alive(call.site):
        return ""
    try:
        if call.read_model().holder_lives():
            return ""
    except StoreError as error:
        return str(error)  # what was recorded is recorded
    after = "HostFactory's next call starts one, or" if call.mode == "auto" else "start it, or"
    return f"no worker lives: {after} run `hostledger worker run`"


def configuration(
    site: Site | None, environ: Mapping[str, str], file: str | None = None
) -> dict[str, Any]:
    """The configuration of an instance (None: of none, with no file of its own): `file` and
    `ibm_file`, where there are any, `warnings` about them, and `values`: of each key its value,
    without what is secret in it, and where that came from (`configuration.Origin`).

    `file` is one in place of ours, or, by its name, of IBM's. Raises BrokenConfiguration.
    """
    from infrastructure.configuration import ConfigurationProblem, trace_settings, without_secrets
    from infrastructure.configuration_keys import value_at

    own, ibm = _configuration_files(site, environ)
    if file is not None and file.endswith("prov_config.json"):
        ibm = file
    elif file is not None:
        own = file
    try:
        settings, warnings, origins = trace_settings(own, ibm, environ)
    except ConfigurationProblem as problem:
        raise BrokenConfiguration(str(problem)) from None
    document = settings.model_dump(mode="json")
    values = [
        {"key": key, "value": without_secrets(value_at(document, key), key), **origin._asdict()}
        for key, origin in origins.items()
    ]
    return {"file": own, "ibm_file": ibm, "warnings": warnings, "values": values}


def _configuration_files(
    site: Site | None, environ: Mapping[str, str]
) -> tuple[str | None, str | None]:
    from infrastructure.site import SYSTEM_CONFIGURATION

    if site is not None:
        (own, ibm, _), _ = compiled.sources(site, environ)
        return own, ibm
    if environ.get("HOSTLEDGER_CONFIG"):
        return os.path.abspath(environ["HOSTLEDGER_CONFIG"]), None
    return (SYSTEM_CONFIGURATION if os.path.exists(SYSTEM_CONFIGURATION) else None), None


def configuration_key(name: str) -> dict[str, Any]:
    """What is to be known of a key. Raises BrokenConfiguration, naming the nearest that there
    is."""
    from infrastructure.configuration_keys import KEYS, described, environment_name, nearest

    if name not in KEYS:
        raise BrokenConfiguration(f"{name} is no key; the nearest is {nearest(name, KEYS)}")
    key = described(name)
    return {
        "key": name,
        "remark": key.remark,
        "takes": key.takes,
        "default": key.default,
        "environment": environment_name(name),
    }


def configuration_schema() -> dict[str, Any]:
    """The JSON Schema of our configuration file."""
    from infrastructure.configuration_keys import schema

    return schema()


def kept_figures(call: Call, since: str) -> dict[str, Any]:
    """What worker and server have kept of their figures since a time, or in a period before now
    (such as 1h): `operations`, `resources` and `queue` (`telemetry.figures.summary`)."""
    from infrastructure.event_store.commit import iso, seconds
    from infrastructure.telemetry import figures

    first = call.now[0] - figures.seconds_of(since) if len(since) < 20 else seconds(since)
    kept = figures.read(call.site.metrics_dir, first)
    return {"since": iso(first), **figures.summary(kept)}


def new_metrics(process: str, environ: Mapping[str, str]) -> Any:
    """What a worker or a server counts with, and traces where OTEL_EXPORTER_OTLP_* names a
    collector. Raises NotInstalled."""
    from infrastructure.telemetry.metrics import MetricsCollector
    from infrastructure.telemetry.tracing import Tracing, is_wanted

    metrics = MetricsCollector()
    if is_wanted(environ):
        metrics.tracing = Tracing(process, environ, metrics)
    return metrics


def metrics_page(call: Call, metrics: Any) -> str:
    """A server's metrics, with those of the worker beside it while it lives."""
    from infrastructure.telemetry.exposition import merged

    return merged(
        metrics,
        call.site.metrics_dir + "/worker.prom",
        lives=worker_start.is_alive(call.site),
        now=call.now[0],
        interval=call.settings["monitoring"]["performance"]["collection_interval"],
    )


def verify_log(
    call: Call,
    lines: Sequence[str] | None,
    key_file: str | None,
    progress: Callable[[int, int], object],
) -> dict[str, Any]:
    """Whether the instance's log is what was written, compared with the `lines` of checkpoints
    where there are any, signed with the key in a file (None: the site's own), and whether the read
    models are what it makes.

    What `verification.verify` says, with `checkpoints` (`good`, `problems`; null for no lines),
    `read_models` (as of `verify_read_models`, or a `problem` with them, or why they are
    `not_compared`: for want of an archive; null where the log is not sound) and `is_sound`.

    Raises BrokenConfiguration for no key, StoreError also for a store that cannot be opened.
    """
    from contextlib import closing

    from application import checkpoints
    from infrastructure.checkpoints import read_key
    from infrastructure.event_store.verification import verify

    key = b""
    if lines is not None:
        key = read_key(key_file or call.settings["audit"]["checkpoint_key"])
    with closing(call.storage.raw_log()) as log:
        chains: dict[int, dict[str, str]] = {}
        compared = None
        if lines is not None:
            chains, problems, good = checkpoints.read(lines, log.deployment, key)
            compared = {"good": good, "problems": problems}
        document = verify(log, chains, progress)
    document["checkpoints"] = compared
    is_sound = not any(part["findings"] for part in (document, *document["copies"]))
    models: dict[str, Any] | None = None
    if is_sound:
        try:
            models = verify_read_models(call, progress)
        except EventsArchivedAway as error:
            models = {"not_compared": str(error), "differences": 0, "failed": []}
        except StoreError as error:
            models = {"problem": str(error), "differences": 0, "failed": []}
    document["read_models"] = models
    wrong = models is None or any(models.get(k) for k in ("problem", "differences", "failed"))
    document["is_sound"] = not (wrong or (compared and compared["problems"]))
    return document


def export_log(view: SqlQueries, path: str | None, since: str, until: str) -> dict[str, Any]:
    """Write the log, or what was recorded in this time, to a file that is not there (None: standard
    output); what is in it. Raises StoreError."""
    from dataclasses import asdict

    from infrastructure.event_store.export_file import EXPORT, Manifest, pages, write_export

    first, last = view.positions_between(since, until)
    manifest = Manifest(
        EXPORT,
        not since and not until,
        view.identity()[0],
        first,
        last,
        max(0, last - first + 1),
        view.chain_at(first - 1),
        view.chain_at(last),
    )
    events = (
        event
        for page in pages(view.events_after, first - 1, lambda event: event["position"])
        for event in page
        if event["position"] <= last
    )
    if manifest.whole:
        commands = pages(view.commands_after, "", lambda command: command[0])
        digest = write_export(path, manifest, events, commands, view.tracked())
    else:
        digest = write_export(path, manifest, events)
    return {"path": path, **asdict(manifest), "sha256": digest}


def read_templates(
    path: str, site: Site | None, environ: Mapping[str, str]
) -> tuple[list[str], list[dict[str, object]]]:
    """Validate a templates file: the ids that are offered, and the problems. Instance types and
    accounts are those of the site, if there is one.

    Raises BrokenConfiguration when the file itself cannot be read.
    """
    from dataclasses import asdict

    from infrastructure.configuration import ConfigurationProblem
    from infrastructure.templates.ibm import Known, read_templates

    known = Known(_known_types(site), _accounts(site, environ)) if site else None
    try:
        templates, problems = read_templates(path, known)
    except ConfigurationProblem as problem:
        raise BrokenConfiguration(str(problem)) from None
    offered = [template["template_id"] for template in templates]
    return offered, [{**asdict(problem), "text": str(problem)} for problem in problems]


def _known_types(site: Site) -> dict[str, dict[str, Any]]:
    from infrastructure.templates.instance_types import known_types, types_file

    return known_types(types_file(site.state_dir))


def _accounts(site: Site, environ: Mapping[str, str]) -> list[str] | None:
    """The site's accounts; None where its configuration cannot be read."""
    from infrastructure.settings import Settings

    try:
        settings = compiled.load(site, environ).settings
    except BrokenConfiguration:
        return None
    return list(Settings.model_validate(settings).provider.places())


def instance_types_named(path: str) -> list[str]:
    """The instance types of a templates file. Raises BrokenConfiguration."""
    from infrastructure.configuration import ConfigurationProblem
    from infrastructure.templates.ibm import types_named

    try:
        return types_named(path)
    except ConfigurationProblem as problem:
        raise BrokenConfiguration(str(problem)) from None


def example_templates(
    site: Site, apis: Sequence[str], given: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[str]]:
    """A template for each of the APIs, made of what `given` says (the fields of `Wanted`), and the
    instance types of which nothing is known: then there is no template."""
    from infrastructure.templates.examples import Wanted, example

    facts = _known_types(site)
    wanted = Wanted(**given)
    unknown = [name for name in wanted.types if name not in facts]
    if unknown:
        return [], unknown
    return [example(api, wanted, facts) for api in dict.fromkeys(apis)], []


def iam_policy(call: Call) -> tuple[dict[str, Any], list[str]]:
    """The policy for what the instance's configuration and templates ask of AWS, and the instance
    profiles whose role was guessed from their name. Raises StoreError."""
    from contextlib import closing

    from infrastructure.aws.iam_policy import policy

    with closing(call.any_store()) as view:
        deployment = view.facts()["deployment"]
    aws = call.settings["provider"]["aws"]
    places = [aws, *call.settings["provider"]["accounts"].values()]
    contents = [template["content"] for template in call.compiled.templates()]
    contents += [own for content in contents for own in content.get("accounts", {}).values()]
    profiles = sorted(_profiles(contents))
    document = policy(
        deployment,
        next((place["region"] for place in places if place["region"]), ""),
        profiles,
        fleet_roles=[content["fleet_role"] for content in contents if content.get("fleet_role")],
        parameters=_parameters(contents),
        queues=[p["interruption_queue"] for p in places if p["interruption_queue"]],
        roles=[place["assume_role"] for place in places if place["assume_role"]],
        tags_ids=aws["tag_instance_id"],
        checkpoints=call.settings["audit"]["checkpoint_to"],
        topic=call.settings["monitoring"]["performance"]["alerts"]["sns_topic_arn"],
    )
    return document, profiles


def store_iam_policy(call: Call, *, only_reads: bool = False) -> dict[str, Any]:
    """The policy for the store in DynamoDB that the instance's configuration names. Raises
    BrokenConfiguration. The store need not be there: this is wanted before it is made."""
    from infrastructure.aws.iam_policy import store_policy
    from infrastructure.event_store.dynamodb_client import TABLES

    section = call.settings["storage"]["dynamodb_strategy"]
    region = section["region"] or call.settings["provider"]["aws"]["region"]
    if not region:
        raise BrokenConfiguration(
            "no region is known: set storage.dynamodb_strategy.region or AWS_REGION"
        )
    tables = [f"{section['table_prefix']}-{name}" for name in TABLES]
    if only_reads:
        from infrastructure.aws.iam_policy import auditor_policy
        from infrastructure.event_store.dynamodb_log import BODIES

        return auditor_policy(region, tables, BODIES)
    scales = section["billing_mode"] == "PROVISIONED" and section["auto_scaling"]["enabled"]
    return store_policy(region, tables, scales)


def _profiles(contents: Sequence[dict[str, Any]]) -> set[str]:
    """The instance profiles that templates give to machines."""
    found = {content["instance_profile"] for content in contents if content.get("instance_profile")}
    for content in contents:
        for part in content.get("native", {}).values():
            profile = part.get("IamInstanceProfile", {})
            found |= {profile[key] for key in ("Arn", "Name") if profile.get(key)}
    return found


def _parameters(contents: Sequence[dict[str, Any]]) -> list[str]:
    """The SSM parameters that templates name for their images."""
    named = [content.get("image_parameter") for content in contents]
    named += [
        part.get("ImageId")
        for content in contents
        for part in content.get("native", {}).values()
        if str(part.get("ImageId", "")).startswith("resolve:ssm:")
    ]
    return [name for name in named if name]


def slow_statements(call: Call, since: str, most: int) -> list[dict[str, Any]]:
    """The slowest statements to the store that are in the log from a time on, with their `plan`,
    as the store would carry them out now. Raises StoreError, NotConfigured, OSError."""
    from contextlib import closing

    from application.diagnosis import slow_statements
    from infrastructure.telemetry.slow_statements import NOTED_AS

    if call.storage.scheme == "dynamodb":
        raise StoreError(
            f"{call.storage.name}: DynamoDB has no statements; how long it takes to answer is in "
            "CloudWatch (SuccessfulRequestLatency)"
        )
    rows = slow_statements(_log_of(call).lines(NOTED_AS, since), most)
    with closing(call.any_store()) as view:
        for row in rows:
            row["plan"] = view.plan(row["sql"])
    return rows


def aws_calls(call: Call, since: str) -> dict[str, Any]:
    """The calls to AWS that are in the log from a time on (`application.diagnosis.aws_calls`).
    Raises NotConfigured, OSError."""
    from application.diagnosis import aws_calls

    return aws_calls(_log_of(call).lines("aws", since))


def _log_of(call: Call) -> Journal:
    if not call.site.log_file:
        raise NotConfigured(
            f"no log of {call.site.provider} is known: set HF_PROVIDER_LOGDIR, or register the "
            "instance with its log directory (`hostledger store init --join --log-dir DIR`)"
        )
    return call.journal()


def memory_looks(site: Site, process: str) -> MemoryLooks:
    """The looks of this process at its own memory, for whom `memory_growth` asks."""
    from infrastructure.telemetry.memory import MemoryLooks

    return MemoryLooks(site.memory, SystemClock(), process)


def memory_growth(call: Call, interval: float) -> list[dict[str, Any]]:
    """What the instance's living processes say of their memory after two looks so many seconds
    apart (`infrastructure.telemetry.memory`). Raises StoreError when there is none."""
    from infrastructure.telemetry import memory

    lives = worker_start.is_alive(call.site)
    worker = int(worker_start.status(call.site).get("pid") or 0) if lives else 0
    found = memory.ask(call.site.memory, call.clock, interval, worker)
    if not found:
        raise StoreError(
            f"no process of {call.site.provider} lives that could be looked at: start the worker "
            "(`hostledger worker run`)"
        )
    return found


def price_list(call: Call) -> Listed:
    """The prices of the site's own file; none without one. Raises BrokenConfiguration."""
    path = call.settings["reports"]["prices"]
    if path is None:
        return {}
    from infrastructure.configuration import ConfigurationProblem
    from infrastructure.prices import read_prices

    try:
        return read_prices(path)
    except ConfigurationProblem as problem:
        raise BrokenConfiguration(str(problem)) from None


def templates_file(site: Site, environ: Mapping[str, str]) -> str:
    """The templates file that is in force, or the place where one should be."""
    paths, _ = compiled.sources(site, environ)
    return paths[2] or site.candidates("templates")[0]


def log_defect(verb: str, trace: str) -> str:
    """Write a trace to the log, with settings that need no configuration; the log's path or ""."""
    from infrastructure.telemetry.journal import Journal

    try:
        log = site_from(os.environ).log_file
    except NotConfigured:
        return ""
    Journal(log, {"level": "ERROR", "max_file_size": 10, "max_rotate": 5}).error(
        "defect", verb=verb, trace=trace
    )
    return log
