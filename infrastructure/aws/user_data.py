"""User data: its body may hold secrets, so a stored payload names it by its digest."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any

from application.ports import CallFailed


def user_data_of(content: dict[str, Any]) -> bytes | None:
    """The body that the template's script and variables make; None when it has neither.

    LSF's `userData` pairs become exports before the script. Raises CallFailed when the script
    cannot be read.
    """
    variables = content.get("user_data_variables") or {}
    path = content.get("user_data_file")
    if not variables and not path:
        return None
    exports = "".join(f"export {name}='{_quoted(value)}'\n" for name, value in variables.items())
    script = b""
    if path:
        try:
            with open(path, "rb") as file:
                script = file.read()
        except OSError as error:
            raise CallFailed(
                "refused",
                "UserDataUnreadable",
                f"userDataScript {error.filename}: {error.strerror}",
            ) from error
    if not exports:
        return script
    first, newline, rest = script.partition(b"\n")
    if first.startswith(b"#!"):
        return first + newline + exports.encode() + rest
    return b"#!/bin/sh\n" + exports.encode() + script


def _quoted(value: str) -> str:
    return value.replace("'", "'\\''")


def named(body: bytes) -> dict[str, str]:
    """What stands for the body in a stored payload."""
    return {"sha256": hashlib.sha256(body).hexdigest()}


def set_aside(parameters: dict[str, Any]) -> bytes | None:
    """The body that base64 user data in launch parameters hold, taken out of them; None when they
    hold none. AWS hands out, and a native specification gives, user data in base64.

    Raises CallFailed when it is no base64.
    """
    text = parameters.get("UserData")
    if not isinstance(text, str):
        return None
    try:
        body = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise CallFailed("refused", "InvalidUserData.Malformed", "UserData is no base64") from error
    parameters["UserData"] = named(body)
    return body


def _body_of(parameters: dict[str, Any], body: bytes | None) -> bytes:
    if body is None or named(body) != parameters["UserData"]:
        raise ValueError("the user data body is not the one that the intent names")
    return body


def with_user_data(payload: dict[str, Any], body: bytes | None) -> dict[str, Any]:
    """The stored payload of RunInstances as it is sent: the digest replaced by the body that has
    it, which botocore encodes."""
    if "UserData" not in payload:
        return payload
    text = _body_of(payload, body).decode("utf-8", "surrogateescape")
    return {**payload, "UserData": text}


def with_encoded_user_data(data: dict[str, Any], body: bytes | None) -> dict[str, Any]:
    """The stored data of a launch template as they are sent: botocore does not encode those."""
    if "UserData" not in data:
        return data
    return {**data, "UserData": base64.b64encode(_body_of(data, body)).decode()}
