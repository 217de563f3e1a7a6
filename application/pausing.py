"""The commands Pause and Resume: the operator's brake on what is done at AWS."""

from __future__ import annotations

from domain.brake import Brake

TYPE_CHECKING = False
if TYPE_CHECKING:
    from application.ports import Ledger


class Pause:
    """`scope` is launching or everything (`domain.brake`); `random` are 16 bytes."""

    def __init__(self, scope: str, reason: str, random: bytes) -> None:
        self.scope = scope
        self.reason = reason
        self.command_id = "cmd-" + random.hex()


class Resume:
    def __init__(self, reason: str, random: bytes) -> None:
        self.reason = reason
        self.command_id = "cmd-" + random.hex()


def pause(command: Pause, ledger: Ledger) -> str:
    """Pull the brake; the scope in which it was pulled already, "" for none."""
    brake = _brake(ledger)
    before = brake.scope
    brake.pause(command.scope, command.reason)
    _save(brake, command.command_id, ledger)
    return before


def resume(command: Resume, ledger: Ledger) -> str:
    """Release the brake; the scope in which it was pulled, "" for none."""
    brake = _brake(ledger)
    before = brake.scope
    brake.resume(command.reason)
    _save(brake, command.command_id, ledger)
    return before


def _brake(ledger: Ledger) -> Brake:
    return ledger.get(Brake, "") or Brake(Brake.stream(""))


def _save(brake: Brake, command_id: str, ledger: Ledger) -> None:
    if brake.has_pending:
        ledger.save(brake, correlation_id=command_id)
