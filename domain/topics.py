"""Every event there is, by the topic under which it is stored. Names here are for ever."""

from __future__ import annotations

from domain import (
    alert,
    archive,
    brake,
    deployment,
    fleet,
    host_factory,
    launch_batch,
    launch_template,
    machine,
    machine_request,
    return_request,
    template,
    termination_batch,
    token,
)
from domain.event_sourced import DomainEvent

TOPICS: dict[str, type[DomainEvent]] = {
    name: item
    for module in (
        deployment,
        template,
        machine_request,
        return_request,
        launch_batch,
        fleet,
        launch_template,
        termination_batch,
        machine,
        host_factory,
        brake,
        archive,
        alert,
        token,
    )
    for name, item in vars(module).items()
    if isinstance(item, type) and issubclass(item, DomainEvent) and item is not DomainEvent
}
