"""What a request may take, and the accounts in which machines are bought."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from infrastructure.settings.aws import Aws, ExternalId, Role
from infrastructure.settings.kinds import (
    CountOrZero,
    Endpoint,
    Number,
    Path,
    Region,
    Seconds,
    SecondsOrZero,
    Section,
    Text,
    Whole,
    blank_is_none,
    from_variable,
)

Most = Annotated[CountOrZero | None, BeforeValidator(blank_is_none)]
MostSpend = Annotated[
    Annotated[Number, Field(ge=0, allow_inf_nan=False)] | None,
    BeforeValidator(blank_is_none),
]


class Caps(Section):
    """Most machines at a time and most spend per hour; null is no limit."""

    machines: Most = None
    """Machines that live or are being asked for. None: no limit."""
    spend_per_hour: MostSpend = None
    """Dollars, by the price per machine hour that templates give (`attributes.priceInfo`). None: no
    limit. A template without a price is not launched while one is set."""


class Limits(Caps):
    """What launching never goes beyond, for the deployment and for single templates."""

    templates: Annotated[dict[str, Caps], BeforeValidator(from_variable)] = {}
    """Template id -> `machines` and `spend_per_hour` of that template alone."""


class Account(Section):
    """One of several places to buy machines: what differs there from `provider.aws`."""

    region: Region = None
    """Its region. None: that of `provider.aws`."""
    endpoint_url: Endpoint = None
    """EC2's address there. None: that of `provider.aws`."""
    credential_file: Path = None
    """A credentials file of its own. None: that of `provider.aws`."""
    profile: Text = None
    """A profile of its own. None: that of `provider.aws`."""
    credential_script: Text = None
    """A program of its own that prints credentials. None: that of `provider.aws`, unless the
    account has a file or a profile of its own."""
    credential_renew_margin: SecondsOrZero | None = None
    """Seconds before their end at which its credentials are renewed. None: that of
    `provider.aws`."""
    assume_role: Role = None
    """The role that is assumed for it: the way to another AWS account without keys of it. None:
    that of `provider.aws`, unless the account has credentials of its own."""
    external_id: ExternalId = None
    """The external id that this role asks for. None: that of `provider.aws`."""
    interruption_queue: Endpoint = None
    """The queue of its interruption warnings. None: it has none; that of `provider.aws` is not
    its."""
    priority: Whole = 0
    """With `provider.selection` priority the lowest comes first."""
    weight: Annotated[Number, Field(gt=0, allow_inf_nan=False)] = 1
    """With `provider.selection` weighted its share of the machines."""


class Provider(Section):
    """What a request may take; `fulfilment_deadline` in seconds."""

    fulfilment_deadline: Seconds = 300
    """Seconds after which nothing more is launched for a request; a template's own
    `fulfilmentDeadline` comes first."""
    limits: Limits = Limits()
    aws: Aws = Aws()
    accounts: Annotated[
        dict[Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]{1,64}$")], Account],
        BeforeValidator(from_variable),
    ] = {}
    """Name -> where machines are bought: credentials and a region. None: one, called `default`,
    that is `provider.aws`. A template runs in those that it names, without any in the first."""
    selection: Literal["first_available", "priority", "weighted", "round_robin", "least_cost"] = (
        "first_available"
    )
    """Which of a template's accounts is asked first; the others follow when it has no capacity or
    does not answer."""

    def places(self) -> dict[str, Aws]:
        """Account -> the settings that hold in it."""
        if not self.accounts:
            return {"default": self.aws}
        return {name: _place(self.aws, account) for name, account in self.accounts.items()}


def _place(aws: Aws, account: Account) -> Aws:
    """What holds in an account. Whoever has credentials of its own takes none of the others': a
    script or a role would stand before them."""
    own = account.model_dump(exclude_none=True, exclude={"priority", "weight"})
    dropped: dict[str, Any] = {"interruption_queue": None}
    if own.keys() & {"credential_file", "profile"}:
        dropped |= {"credential_script": None, "assume_role": None}
    elif "credential_script" in own:
        dropped |= {"assume_role": None}
    return aws.model_copy(update={**dropped, **own})
