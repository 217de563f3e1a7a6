"""What a site needs to live in the sandbox and in a time of its own: a clock, and settings that
lead nowhere else."""

from __future__ import annotations

from typing import Any

from application.instants import Instant


class SimulatedClock:
    """The port `Clock`, from a time on (seconds since the epoch): who sleeps, for him it has gone
    by."""

    def __init__(self, wall: float) -> None:
        self.wall = wall

    def now(self) -> Instant:
        return (self.wall, "simulated", self.wall)

    def sleep(self, seconds: float) -> None:
        self.wall += seconds


def simulated_places(
    provider: dict[str, Any], credentials: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """`provider.aws` and `provider.accounts` without anything that leads to AWS, and whose access
    key is whose (key -> account number). The keys are written to the file `credentials`."""
    nowhere = dict.fromkeys(
        (
            "endpoint_url", "credential_script", "assume_role", "external_id", "proxy",
            "interruption_queue",
        )
    )  # fmt: skip
    keys: dict[str, str] = {}
    lines = []

    def place(section: dict[str, Any]) -> dict[str, Any]:
        key = f"SIMULATED{len(keys):07d}"
        keys[key] = f"{len(keys) + 1:012d}"
        lines.append(f"[{key}]\naws_access_key_id = {key}\naws_secret_access_key = none\n")
        own = {name: None for name in nowhere if name in section}
        return {**section, **own, "credential_file": credentials, "profile": key}

    places = {
        "aws": place({**provider["aws"], "region": provider["aws"]["region"] or "us-east-1"}),
        "accounts": {name: place(section) for name, section in provider["accounts"].items()},
    }
    with open(credentials, "w", encoding="utf-8") as file:
        file.write("".join(lines))
    return places, keys
