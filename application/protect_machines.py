"""The commands ProtectMachines and UnprotectMachines: what nothing of ours may end."""

from __future__ import annotations

from domain.machine import Machine
from domain.refusals import UnknownMachine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from application.ports import Ledger

MOST = 30
"""Machines in one commit."""


class ProtectMachines:
    def __init__(self, machine_ids: list[str], reason: str, random: bytes) -> None:
        self.machine_ids = list(dict.fromkeys(machine_ids))
        self.reason = reason
        self.command_id = "cmd-" + random.hex()


class UnprotectMachines(ProtectMachines):
    pass


def protect_machines(command: ProtectMachines, ledger: Ledger) -> None:
    """Raises UnknownMachine, MachineIsGone; then nothing was recorded."""
    machines = _machines(command, ledger)
    for machine in machines:
        machine.protect(command.reason)
    _save(command, machines, ledger)


def unprotect_machines(command: UnprotectMachines, ledger: Ledger) -> None:
    """Raises UnknownMachine; then nothing was recorded."""
    machines = _machines(command, ledger)
    for machine in machines:
        machine.unprotect(command.reason)
    _save(command, machines, ledger)


def _machines(command: ProtectMachines, ledger: Ledger) -> list[Machine]:
    found = {machine_id: ledger.get(Machine, machine_id) for machine_id in command.machine_ids}
    unknown = [machine_id for machine_id, machine in found.items() if machine is None]
    if unknown:
        raise UnknownMachine(
            f"the ledger has no machine {', '.join(unknown)}: nothing was recorded; "
            "`hostledger machines list --alive` shows what it has"
        )
    return [machine for machine in found.values() if machine is not None]


def _save(command: ProtectMachines, machines: list[Machine], ledger: Ledger) -> None:
    changed = [machine for machine in machines if machine.has_pending]
    for start in range(0, len(changed), MOST):
        ledger.save(*changed[start : start + MOST], correlation_id=command.command_id)
