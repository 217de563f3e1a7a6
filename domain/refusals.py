"""The ways the domain says no, each with the sentence a person reads."""


class Refusal(Exception):
    """The domain's no. `str()` names the thing and the reason; nothing was recorded."""


class UnknownTemplate(Refusal):
    """No template of that id is offered."""


class BadMachineCount(Refusal):
    """The count is not a whole number from 1 up."""


class OverTemplateLimit(Refusal):
    """More machines than the template's maxNumber allows."""


class UnknownRequest(Refusal):
    """The ledger has no such request."""


class RequestIsFinal(Refusal):
    """A final request cannot be cancelled; its machines are returned instead."""


class NothingToReturn(Refusal):
    """A return names no machine."""


class UnknownMachine(Refusal):
    """The ledger has no such machine."""


class MachineIsGone(Refusal):
    """What lives no more cannot be protected."""


class NotDoubtful(Refusal):
    """Only a launch whose outcome is in doubt can be settled by order."""


class NotTerminable(Refusal):
    """The machine is not one that this command may terminate."""


class NotAdoptable(Refusal):
    """The instance is not one that the ledger may take in."""


class UnknownToken(Refusal):
    """The ledger has no token of that id."""


class TokenIsRevoked(Refusal):
    """A token is revoked once."""
