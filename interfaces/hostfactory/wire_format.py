"""What HostFactory sends, read with care: the only file that knows its camelCase keys of input.

Shapes and tolerance: IBM Spectrum Symphony 7.3.2, provider plug-in interface; its pages print an
object where captures show a list, so either is taken.
"""

from __future__ import annotations

from application.json_text import BadJson, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class BadInput(Exception):
    """The input file cannot be used. `str()` names the file, the place in it and the cause."""


def shown(value: object) -> str:
    """A value for a message: short, whatever was sent."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_input(path: str) -> tuple[dict[str, Any], str]:
    """The JSON object in the file, and its path for messages. Raises BadInput."""
    try:
        with open(path, "rb", 0) as file:
            body = file.read()
    except OSError as error:
        raise BadInput(f"input file {path}: {error.strerror}") from None
    except ValueError:
        raise BadInput(f"input file {shown(path)} cannot be a path") from None
    try:
        text = body.decode("utf-8-sig" if body.startswith(b"\xef\xbb\xbf") else "utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"input file {path}: not UTF-8 at byte {error.start}") from None
    if not text.strip():
        raise BadInput(f"input file {path} is empty")
    try:
        value = loads(text)
    except BadJson as error:
        raise BadInput(f"input file {path}: {error}") from None
    if not isinstance(value, dict):
        raise BadInput(f"input file {path}: an object is needed, not {shown(value)}")
    return value, path


def _entries(document: dict[str, Any], key: str, path: str) -> list[dict[str, Any]]:
    value = document.get(key, [])
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise BadInput(f"input file {path}: {key} must be a list, not {shown(value)}")
    for index, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise BadInput(
                f"input file {path}: {key}[{index}] must be an object, not {shown(entry)}"
            )
    return value


def asked_machines(document: dict[str, Any], path: str) -> tuple[str, object]:
    """templateId and machineCount of requestMachines; the count is judged by the domain."""
    template = document.get("template")
    if isinstance(template, list) and len(template) == 1:
        template = template[0]
    if not isinstance(template, dict):
        raise BadInput(
            f"input file {path}: template must be an object with templateId and machineCount, "
            f"not {shown(template)}"
        )
    template_id = template.get("templateId")
    if not isinstance(template_id, str) or not template_id:
        raise BadInput(
            f"input file {path}: template.templateId must be text, not {shown(template_id)}"
        )
    if "machineCount" not in template:
        raise BadInput(f"input file {path}: template.machineCount is missing")
    return template_id[:200], template["machineCount"]


def asked_requests(document: dict[str, Any], path: str) -> list[str]:
    """The distinct request ids of getRequestStatus, in their order."""
    ids: dict[str, None] = {}
    for index, entry in enumerate(_entries(document, "requests", path)):
        request_id = entry.get("requestId")
        if not isinstance(request_id, str) or not request_id:
            raise BadInput(
                f"input file {path}: requests[{index}].requestId must be text, "
                f"not {shown(request_id)}"
            )
        ids[request_id] = None
    return list(ids)


def named_machines(document: dict[str, Any], path: str) -> list[tuple[str, str]]:
    """Machine id ("" when not given) and host name ("" when not given) of each machine named."""
    machines: list[tuple[str, str]] = []
    for index, entry in enumerate(_entries(document, "machines", path)):
        machine_id = entry.get("machineId") or ""
        name = entry.get("name") or ""
        if not isinstance(machine_id, str) or not isinstance(name, str) or not machine_id + name:
            raise BadInput(
                f"input file {path}: machines[{index}] must have a name or a machineId as text, "
                f"not {shown(entry)}"
            )
        machines.append((machine_id, name))
    return machines
