"""A cloud on a sandbox of its own, for the tests of infrastructure/aws."""

from __future__ import annotations

from typing import Any

from application.json_text import dumps, loads
from application.ports import Launched, Planned
from domain.capacity import RUN_INSTANCES, Pool, launch_api, pools_of, price_type
from infrastructure.aws.ec2 import Ec2
from infrastructure.sandbox.ec2 import Sandbox
from infrastructure.settings.aws import Aws
from infrastructure.telemetry.journal import Journal
from tests.fakes.clock import FakeClock

DEPLOYMENT = "d1e2f3a4" * 4
BATCH = "bat-" + "0" * 32
TAGS = {
    "hostledger:deployment": DEPLOYMENT,
    "hostledger:incarnation": "1",
    "hostledger:provider": "awsinst",
    "hostledger:batch": BATCH,
}
CONTENT: dict[str, Any] = {
    "template_id": "T",
    "image_id": "ami-0a1b2c3d",
    "subnet_ids": ["subnet-a"],
    "vm_type": "m5.large",
}
SPOT_CONTENT: dict[str, Any] = {
    "template_id": "T",
    "image_id": "ami-0a1b2c3d",
    "subnet_ids": ["subnet-a", "subnet-b"],
    "vm_types": {"m5.large": 1, "m5.xlarge": 2},
    "price_type": "spot",
}
ROLE = "arn:aws:iam::123456789012:role/fleet"
BY_API: dict[str, dict[str, Any]] = {
    "CreateFleet": {"provider_api": "EC2Fleet"},
    "RequestSpotFleet": {"provider_api": "SpotFleet", "fleet_role": ROLE},
    "CreateAutoScalingGroup": {"provider_api": "ASG"},
}
"""What makes a template be launched by an API."""

LOGGING = {"level": "DEBUG", "max_file_size": 10, "max_rotate": 1}


class Place:
    """A sandbox and the cloud on it. `settings` are those of provider.aws."""

    def __init__(
        self,
        log: str = "",
        sandbox: Sandbox | None = None,
        clock: FakeClock | None = None,
        **settings: Any,
    ) -> None:
        self.clock = clock or FakeClock()
        self.sandbox = sandbox or Sandbox(clock=lambda: self.clock.wall)
        self.log = log
        aws = Aws.model_validate({"region": "us-east-1", **settings})
        self.cloud = Ec2("default", aws, self.clock, Journal(log, LOGGING), self.sandbox.attach)
        self._launches = 0

    def plan(
        self,
        content: dict[str, Any],
        units: int = 1,
        pools: list[Pool] | None = None,
        tags: dict[str, str] = TAGS,
    ) -> Planned:
        """The plan for the template's own pools, which a store can keep."""
        if pools is None:
            pools = pools_of(content, "spot" if price_type(content) != "ondemand" else "ondemand")
            if launch_api(content) == RUN_INSTANCES:
                pools = pools[:1]
        planned = self.cloud.plan(content, pools, units, tags)
        assert loads(dumps(planned.payload)) == planned.payload
        assert loads(dumps(planned.launch_template)) == planned.launch_template
        return planned

    def launch(self, planned: Planned, token: str = "") -> Launched:
        """Make the launch template, then the launch."""
        self._launches += 1
        token = token or f"token-{self._launches}"
        if planned.launch_template is not None:
            self.cloud.create_launch_template(
                planned.launch_template, f"{token}-template", planned.user_data
            )
        body = planned.user_data if planned.api == RUN_INSTANCES else None
        return self.cloud.launch(planned.api, planned.payload, token, body)

    def later(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def actions(self) -> list[str]:
        """The calls that the sandbox has had so far."""
        return [call.action for call in self.sandbox.calls]
