"""The command AdoptOrphans: an operator takes instances with our tag into the ledger."""

from __future__ import annotations

from application.terminate_orphans import refuse_others
from application.turn import MOST_STREAMS
from domain.machine import Machine
from domain.refusals import NotAdoptable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from application.ports import Ledger


class AdoptOrphans:
    """`orphans` are rows of the last complete sweep, with what it saw of each; `under_way` are
    machines of terminations without an answer. `provider` is whose those are that do not say."""

    def __init__(
        self,
        machine_ids: list[str],
        orphans: list[dict[str, Any]],
        under_way: set[str],
        provider: str,
        reason: str,
        random: bytes,
    ) -> None:
        self.machine_ids = list(dict.fromkeys(machine_ids))
        self.orphans = {row["machine_id"]: row for row in orphans}
        self.under_way = under_way
        self.provider = provider
        self.reason = reason
        self.command_id = "cmd-" + random.hex()


def adopt_orphans(command: AdoptOrphans, ledger: Ledger) -> None:
    """Let them be machines of the ledger, that no request has.

    Raises NotAdoptable, naming what is no orphan, is being terminated or has ended in the ledger;
    then nothing was recorded.
    """
    ids, orphans = command.machine_ids, command.orphans
    refuse_others(NotAdoptable, ids, orphans, "not among the orphans that the last sweep saw")
    free = orphans.keys() - command.under_way
    refuse_others(NotAdoptable, ids, free, "being terminated already")
    known = {machine_id: ledger.get(Machine, machine_id) for machine_id in ids}
    refuse_others(
        NotAdoptable,
        ids,
        [machine_id for machine_id in ids if known[machine_id] is None],
        "gone in the ledger although EC2 shows it (`hostledger audit history ID` says why): it can "
        "be ended with `hostledger orphans terminate`",
    )
    machines = [_adopted(command, orphans[machine_id]) for machine_id in ids]
    for start in range(0, len(machines), MOST_STREAMS):
        ledger.save(*machines[start : start + MOST_STREAMS], correlation_id=command.command_id)


def _adopted(command: AdoptOrphans, row: dict[str, Any]) -> Machine:
    machine = Machine(Machine.stream(row["machine_id"]))
    machine.adopt(
        batch_id=row["batch_id"],
        provider=row["provider"] or command.provider,
        # The log has no such batch: neither the template nor its weight is known.
        template_id="",
        revision="",
        account=row["account"],
        region=row["region"],
        zone=row["zone"],
        instance_type=row["instance_type"],
        price_type=row["price_type"],
        name=row["name"],
        private_ip_address=row["private_ip_address"],
        launch_time=row["launch_time"],
        units=1,
        reason=command.reason,
    )
    return machine
