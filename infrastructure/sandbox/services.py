"""The services beside EC2: how each names its errors, and who answers its calls."""

from __future__ import annotations

from collections.abc import Callable

from .faults import Fault
from .groups import Groups
from .sqs import Queues
from .ssm import Parameters
from .sts import Accounts, Caller
from .wire import Asked, AwsError, AwsResponse, json_answer, query_answer

Again = Callable[[str], AwsResponse]


def answer_sts(
    accounts: Accounts, asked: Asked, caller: Caller, now: float, request_id: str
) -> AwsResponse:
    """Answer GetCallerIdentity and AssumeRole. Raises AwsError."""
    match asked.action:
        case "GetCallerIdentity":
            content = accounts.identity(caller)
        case "AssumeRole":
            content = accounts.assume_role(asked.params, caller, now)
        case _:
            raise _no_such(asked)
    return query_answer("sts", asked.action, content, request_id)


def answer_elsewhere(asked: Asked, groups: Groups, parameters: Parameters, queues: Queues) -> Again:
    """Do what autoscaling, ssm or sqs is asked; the result renders the answer. Raises AwsError."""
    service, action = asked.service, asked.action
    if service == "autoscaling":
        text = groups.answer(action, asked.params)
        if text is not None:
            return lambda i: query_answer(service, action, text, i)
    elif service in ("ssm", "sqs"):
        answers = parameters.answer if service == "ssm" else queues.answer
        content = answers(action, asked.params)
        if content is not None:
            return lambda i: json_answer(service, content, i)
    raise _no_such(asked)


def throttled(service: str) -> AwsError:
    """What a caller hears who asked too often.

    EC2: throttling.html. SSM: its model, at GetParameter. SQS: RequestThrottled of its model.
    Auto Scaling and STS say Throttling, from memory (their CommonErrors.html has
    ThrottlingException).
    """
    match service:
        case "ec2":
            return AwsError("RequestLimitExceeded", "Request limit exceeded.", 503)
        case "ssm":
            return AwsError("ThrottlingException", "Rate exceeded")
        case "sqs":
            return AwsError("RequestThrottled", "Request is throttled.")
    return AwsError("Throttling", "Rate exceeded")


def fault_error(fault: Fault, service: str) -> AwsError | None:
    """The AWS error that a fault answers, if it answers one (CommonErrors.html of each API)."""
    match fault.kind:
        case "throttle":
            return throttled(service)
        case "e500":
            code = {"ec2": "InternalError", "ssm": "InternalServerError"}.get(
                service, "InternalFailure"
            )
            return AwsError(code, "An internal error has occurred.", 500)
        case "e503":
            code = "Unavailable" if service == "ec2" else "ServiceUnavailable"
            return AwsError(code, "The service is unavailable. Please try again.", 503)
        case "error":
            code = fault.params["code"]
            message = fault.params.get("message", f"{code}, as the sandbox was told")
            return AwsError(code, message, fault.params.get("status", 400))
    return None


def _no_such(asked: Asked) -> AwsError:
    return AwsError("InvalidAction", f"The sandbox cannot do this: {asked.service} {asked.action}")
