"""The command TerminateOrphans: an operator ends instances that carry our tag and nobody knows."""

from __future__ import annotations

from domain.identifiers import TERMINATION, new_id
from domain.refusals import NotTerminable
from domain.termination_batch import TerminationBatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from typing import Any

    from application.ports import Ledger
    from domain.refusals import Refusal


class TerminateOrphans:
    """`orphans` are rows (machine_id, account, region, zone) of the last complete sweep;
    `under_way` are machines of terminations without an answer; `most` fit in one AWS call."""

    def __init__(
        self,
        machine_ids: list[str],
        orphans: list[dict[str, Any]],
        under_way: set[str],
        reason: str,
        most: int,
        random: Callable[[int], bytes],
    ) -> None:
        self.machine_ids = list(dict.fromkeys(machine_ids))
        self.orphans = {row["machine_id"]: row for row in orphans}
        self.under_way = under_way
        self.reason = reason
        self.most = most
        self.random = random


def terminate_orphans(command: TerminateOrphans, ledger: Ledger) -> list[str]:
    """Write down the calls, one or more a zone, in one commit; their ids. The worker sends them.

    Raises NotTerminable, naming what is no orphan or is being terminated already; then nothing
    was recorded.
    """
    ids, orphans = command.machine_ids, command.orphans
    refuse_others(NotTerminable, ids, orphans, "not among the orphans that the last sweep saw")
    free = orphans.keys() - command.under_way
    refuse_others(NotTerminable, ids, free, "being terminated already")
    zones: dict[tuple[str, str, str], list[str]] = {}
    for machine_id in command.machine_ids:
        row = command.orphans[machine_id]
        zones.setdefault((row["account"], row["region"], row["zone"]), []).append(machine_id)
    intended = [
        TerminationBatch.intend(
            new_id(TERMINATION, command.random(16)),
            machine_ids[start : start + command.most],
            *place,
            f"orphan, ended by an operator: {command.reason}",
        )
        for place, machine_ids in zones.items()
        for start in range(0, len(machine_ids), command.most)
    ]
    ids = [batch.identifier for batch in intended]
    ledger.save(*intended, correlation_id=ids[0], command=(ids[0], ids[0]))
    return ids


def refuse_others(
    refusal: type[Refusal], machine_ids: list[str], allowed: Container[str], why: str
) -> None:
    """Raises the refusal, naming those of the machines that are not allowed, and why."""
    wrong = [machine_id for machine_id in machine_ids if machine_id not in allowed]
    if wrong:
        verb = "is" if len(wrong) == 1 else "are"
        raise refusal(
            f"{', '.join(wrong)} {verb} {why}: nothing was recorded; see `hostledger orphans list`"
        )
