"""A subnet whose addresses are taken and released on the sandbox's terms."""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Iterator
from typing import Any

from moto.ec2.models.subnets import Subnet

from .wire import AwsError


class SandboxSubnet(Subnet):
    """A subnet that gives an address again only when it has no unused one left.

    moto reuses an address as soon as Python collects the instance that had it, which differs from
    run to run.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # The first four addresses and the last are AWS's (User Guide, subnet-sizing.html).
        self._fresh: Iterator[Any] = iter(self.cidr.hosts())
        for _ in range(3):
            next(self._fresh)
        self._taken: set[str] = set()
        self._released: deque[str] = deque()

    @property
    def free_addresses(self) -> int:
        """How many more instances fit."""
        return int(self.cidr.num_addresses) - 5 - len(self._taken)

    def get_available_subnet_ip(self, instance: Any) -> str:
        for address in self._fresh:
            if str(address) not in self._taken:
                return self._take(str(address))
        return self._take(self._released.popleft())

    def request_ip(self, ip: str, instance: Any) -> None:
        if ipaddress.ip_address(ip) not in self.cidr:
            raise AwsError("InvalidParameterValue", f"Address {ip} does not fall within the subnet")
        if ip in self._taken:
            raise AwsError("InvalidIPAddress.InUse", f"Address {ip} is in use.")
        if ip in self._released:
            self._released.remove(ip)
        self._take(ip)

    def del_subnet_ip(self, ip: str) -> None:
        """Nothing: the sandbox releases addresses when instances terminate."""

    def release(self, ip: str) -> None:
        """Take an address back."""
        if ip in self._taken:
            self._taken.remove(ip)
            self._released.append(ip)

    def _take(self, ip: str) -> str:
        self._taken.add(ip)
        return ip
