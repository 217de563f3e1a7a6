"""What is left in an account and region that is no instance, and costs or piles up."""

from __future__ import annotations

from collections.abc import Mapping

from .fleet import INSTANT, Fleet
from .fleets import Fleets
from .launch_templates import LaunchTemplates
from .region import LIVE_STATES, Region
from .spot_fleets import SpotFleets


def leftovers(
    region: Region,
    templates: LaunchTemplates,
    fleets: Fleets,
    spot_fleets: SpotFleets,
    tags: Mapping[str, str],
) -> dict[str, list[str]]:
    """Ids by kind of everything with these tags that a deployment should have cleaned up.

    Volumes and network interfaces without a living machine, launch templates, fleets and Spot
    Fleet requests that were not deleted, and spot instance requests that are open without a
    living instance. Fleets of type instant without a living machine are empty_fleets: no listing
    shows them (DescribeFleets has to be given their id), and they cost nothing. Kinds without any
    are left out.
    """

    def ours(resource: str) -> bool:
        return tags.items() <= region.tags.get(resource, {}).items()

    living = {
        machine.instance
        for machine in region.machines.values()
        if machine.state in LIVE_STATES or machine.state == "shutting-down"
    }
    found = {
        "volumes": [
            volume_id
            for volume_id, volume in region.volumes.items()
            if ours(volume_id)
            and (volume.attachment is None or volume.attachment.instance not in living)
        ],
        "network_interfaces": [
            nic_id
            for nic_id, nic in region.enis.items()
            if ours(nic_id) and nic.instance not in living
        ],
        "launch_templates": [one for one in templates.templates if ours(one)],
        "fleets": [
            fleet_id
            for fleet_id, fleet in fleets.fleets.items()
            if ours(fleet_id) and not fleet.ended and not _is_hidden(fleet)
        ],
        "empty_fleets": [
            fleet_id
            for fleet_id, fleet in fleets.fleets.items()
            if ours(fleet_id) and not fleet.ended and _is_hidden(fleet)
        ],
        "spot_fleets": [
            fleet_id
            for fleet_id, fleet in spot_fleets.fleets.items()
            if ours(fleet_id) and not fleet.ended
        ],
        "spot_requests": [
            request_id
            for request_id, request in region.spot_asked.items()
            if ours(request_id)
            and request.state == "active"
            and request.machine.instance not in living
        ],
    }
    return {kind: ids for kind, ids in found.items() if ids}


def _is_hidden(fleet: Fleet) -> bool:
    return fleet.kind == INSTANT and all(
        machine.state not in LIVE_STATES for machine in fleet.machines.values()
    )
