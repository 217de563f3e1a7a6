"""What HostFactory is answered, in its own words: the only file that writes its camelCase keys.

Shapes: IBM Spectrum Symphony 7.3.2, provider plug-in interface, getRequestStatus.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def request_head(row: dict[str, Any]) -> dict[str, Any]:
    """One entry of `requests` but for its machines."""
    return {
        "requestId": row["request_id"],
        "status": row["status"],
        "message": row["message"],
    }


def machine(row: dict[str, Any]) -> dict[str, Any]:
    """One entry of `machines` in the status of the request that made it."""
    return {
        "machineId": row["machine_id"],
        "name": row["name"],
        "result": row["result"],
        "status": row["status"],
        "privateIpAddress": row["private_ip_address"],
        "launchtime": row["launch_time"],
        "message": row["message"],
        "instanceType": row["instance_type"],
        "priceType": row["price_type"],
        "cloudHostId": None,
    }


def returned_machine(row: dict[str, Any], fragment: dict[str, Any]) -> dict[str, Any]:
    """The same machine in the status of a return: gone is success, whatever ended it."""
    return {
        **fragment,
        "result": "executing" if row["alive"] else "succeed",
        "message": "" if row["alive"] else row["message"],
    }


def refused_machine(row: dict[str, Any], message: str) -> dict[str, Any]:
    """A machine of ours in a return that EC2 would not end."""
    return {**machine(row), "result": "fail", "message": message}


def stranger(machine_id: str, name: str, result: str, message: str) -> dict[str, Any]:
    """A machine in a return that the ledger does not have."""
    status = {"succeed": "terminated", "fail": "running"}.get(result, "running")
    return {
        "machineId": machine_id,
        "name": name,
        "result": result,
        "status": status,
        "privateIpAddress": "",
        "launchtime": 0,
        "message": message,
    }
