"""What a site may choose, with its defaults and the rules between them."""

# No file of this package imports annotations from __future__: pydantic would compile each of them
# again at every start.

from typing import Any, Self

from pydantic import model_validator

from infrastructure.settings.kinds import Section, clash
from infrastructure.settings.ledger import Audit, Reports, Retention
from infrastructure.settings.performance import Performance, Processing
from infrastructure.settings.provider import Provider
from infrastructure.settings.server import Server
from infrastructure.settings.storage import Storage
from infrastructure.settings.telemetry import Logging, Monitoring
from infrastructure.settings.worker import LEASE_MARGIN, Worker


class Settings(Section):
    """Everything a site may choose, validated and frozen; `Settings()` is the defaults."""

    storage: Storage = Storage()
    worker: Worker = Worker()
    provider: Provider = Provider()
    audit: Audit = Audit()
    logging: Logging = Logging()
    monitoring: Monitoring = Monitoring()
    retention: Retention = Retention()
    reports: Reports = Reports()
    server: Server = Server()
    performance: Performance = Performance()
    processing: Processing = Processing()

    @model_validator(mode="wrap")
    @classmethod
    def _let_each_call_work(cls, value: Any, validate: Any) -> Any:
        """Without operations beside the calls each call works."""
        settings = validate(value)
        worker = settings.worker
        if settings.performance.cpu.async_operations or worker.mode == "inline":
            return settings
        if "mode" in worker.model_fields_set:
            raise clash(
                "performance.cpu.async_operations is false, so that each call works, but "
                f"worker.mode is {worker.mode}",
                "take one of them out",
                "worker.mode",
                "performance.cpu.async_operations",
            )
        inline = worker.model_copy(update={"mode": "inline"})
        return settings.model_copy(update={"worker": inline})

    @model_validator(mode="after")
    def _refuse_lease_shorter_than_a_call(self) -> Self:
        timeouts = self.provider.aws.timeouts
        shortest = timeouts.connect_timeout + timeouts.read_timeout + LEASE_MARGIN
        if self.worker.lease_time < shortest:
            raise clash(
                f"worker.lease_time ({self.worker.lease_time:g} s) is less than {shortest:g} s: "
                f"provider.aws.timeouts.connect_timeout ({timeouts.connect_timeout:g} s) + "
                f"provider.aws.timeouts.read_timeout ({timeouts.read_timeout:g} s) + "
                f"{LEASE_MARGIN} s",
                "lengthen the lease or shorten the timeouts",
                "worker.lease_time",
                "provider.aws.timeouts.read_timeout",
                "provider.aws.timeouts.connect_timeout",
            )
        return self

    @model_validator(mode="after")
    def _refuse_launches_no_bucket_admits(self) -> Self:
        aws = self.provider.aws
        bucket = "provider.aws.buckets.RunInstances:instances"
        size = aws.buckets["RunInstances:instances"][0]
        for name in ("launch_chunk", "fleet_chunk"):
            chunk, key = getattr(aws, name), f"provider.aws.{name}"
            if chunk > size:
                raise clash(
                    f"{key} ({chunk}) is more than {bucket} ever holds ({size:g})",
                    "make the chunk smaller or the bucket larger",
                    key,
                    bucket,
                )
        return self

    @model_validator(mode="after")
    def _refuse_accounts_that_are_no_places(self) -> Self:
        """Two that are one place at AWS would each take the other's machines for strangers."""
        seen: dict[tuple[str, ...], str] = {}
        for name, aws in self.provider.places().items() if self.provider.accounts else ():
            key = f"provider.accounts.{name}"
            if aws.region is None:
                raise clash(
                    f"{key} has no region, and there is no provider.aws.region",
                    "give it one",
                    "provider.accounts",
                )
            # As far as settings can tell: keys of one AWS account may lie in two files.
            who = (
                ("role", aws.assume_role.split(":")[4])
                if aws.assume_role
                else ("script", aws.credential_script)
                if aws.credential_script
                else ("profile", aws.credential_file or "", aws.profile)
            )
            other = seen.setdefault((*who, aws.region, aws.endpoint_url or ""), name)
            if other != name:
                raise clash(
                    f"{key} and provider.accounts.{other} are the same AWS account and region",
                    "take one of them out, or give it a region or credentials of its own",
                    "provider.accounts",
                )
        return self
