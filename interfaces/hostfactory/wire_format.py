"""What HostFactory sends, read with care: the only file that knows its camelCase keys of input.

Shapes and tolerance: IBM Spectrum Symphony 7.3.2, provider plug-in interface; its pages print an
object where captures show a list, so either is taken.
"""

from __future__ import annotations

from application.json_text import BadJson, dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


LONGEST_NAME = 255
"""Characters of a machine id or host name: DNS has no longer ones."""


class BadInput(Exception):
    """The input file cannot be used. `str()` names the file, the place in it and the cause."""


def shown(value: object) -> str:
    """A value for a message: short, whatever was sent."""
    try:
        text = dumps(value)
    except RecursionError:
        return "something nested deeply"
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
    if "\\u" in text and not _is_unicode(value):
        raise BadInput(f"input file {path}: half of a surrogate pair is no character")
    if not isinstance(value, dict):
        raise BadInput(f"input file {path}: an object is needed, not {shown(value)}")
    return value, path


def _is_unicode(value: object) -> bool:
    """Whether the escapes of a document (\\ud83d) make characters that can be stored."""
    try:
        dumps(value).encode()
    except UnicodeEncodeError:
        return False
    except RecursionError:
        return True  # too deep to be anything that is asked for
    return True


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


def resource_account(document: dict[str, Any]) -> str:
    """LSF's `rc_account`, which its machines get as a tag; "" for none."""
    account = document.get("rc_account")
    return account[:256] if isinstance(account, str) else ""


def asked_machines(document: dict[str, Any], path: str) -> tuple[str, int]:
    """templateId and machineCount of requestMachines; the domain says whether it is too many.

    "3" is taken for 3, as IBM's plug-in takes it; 2.5, true and null are not.
    """
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
    count = template["machineCount"]
    if isinstance(count, str) and count.isascii() and count.isdigit():
        count = int(count[:20])
    if isinstance(count, bool) or not isinstance(count, int):
        raise BadInput(
            f"input file {path}: template.machineCount must be a whole number from 1, "
            f"not {shown(count)}"
        )
    # What is longer is over every limit, and an answer of a thousand digits helps nobody.
    return template_id[:200], max(-1, min(count, 10**18))


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
    entries = _entries(document, "machines", path)
    try:
        ids = [entry["machineId"] for entry in entries]
        names = [entry["name"] for entry in entries]
    except KeyError:
        pass
    else:
        # HostFactory names all of its hosts in each call: looked at together, and closely only
        # where one is not known (`refuse_odd_names`).
        if {*map(type, ids), *map(type, names)} == {str} and all(ids):
            return list(zip(ids, names, strict=True))
    machines: list[tuple[str, str]] = []
    for index, entry in enumerate(entries):
        machine_id, name = entry.get("machineId"), entry.get("name")
        if not machine_id and not name:
            raise BadInput(
                f"input file {path}: machines[{index}] must have a name or a machineId, "
                f"not {shown(entry)}"
            )
        place = f"input file {path}: machines[{index}]"
        machines.append((_name(machine_id, place + ".machineId"), _name(name, place + ".name")))
    return machines


def refuse_odd_names(machines: list[tuple[str, str]], path: str) -> None:
    """Raises BadInput for an id or name that no machine could have."""
    for machine_id, name in machines:
        _name(machine_id, f"input file {path}: a machineId")
        _name(name, f"input file {path}: a name")


def _name(value: object, place: str) -> str:
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or len(value) > LONGEST_NAME or not value.isprintable():
        raise BadInput(
            f"{place} must be text of up to {LONGEST_NAME} printable characters, not {shown(value)}"
        )
    return value
