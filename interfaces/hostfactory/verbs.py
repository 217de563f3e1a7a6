"""The five verbs of HostFactory: read the input, do the verb, print one JSON object.

Exit 0 means done, 1 means failed with {"message": ...}: HostFactory knows no other.
"""

from __future__ import annotations

import gc
import os

READS = ("getAvailableTemplates", "getRequestStatus", "getReturnRequests")
WRITES = ("requestMachines", "requestReturnMachines")


def run(verb: str, arguments: list[str], python: str) -> tuple[int, str]:
    """Exit status and the text for stdout."""
    from application.json_text import dumps
    from interfaces.hostfactory.wire_format import BadInput, read_input

    try:
        if len(arguments) != 2 or arguments[0] != "-f":
            raise BadInput(f"usage: {verb}.sh -f FILE")
        document, path = read_input(arguments[1])
        if verb in READS:
            from interfaces.hostfactory.reads import VERBS
        elif verb in WRITES:
            from interfaces.hostfactory.writes import VERBS
        else:
            raise BadInput(f"{verb} is no verb of HostFactory")
        from interfaces.read_side import Call

        call = Call(verb, os.environ, python)
        answer = VERBS[verb](call, document, path)
        call.take_wanted_turn()
        return 0, answer
    except BadInput as error:
        return 1, dumps({"message": str(error)})
    except Exception as error:
        from interfaces.hostfactory.failures import explain

        return 1, dumps({"message": explain(verb, error)})


def main(python: str, verb: str, *arguments: str) -> int:
    """Run a verb and write its answer; the exit status.

    `python` is the interpreter of the installation, for what a bare one cannot do: start a worker.
    """
    # The process ends before there is anything to collect, and a large input makes many objects.
    gc.disable()
    status, text = run(verb, list(arguments), python)
    answer = (text + "\n").encode(errors="replace")
    while answer:
        answer = answer[os.write(1, answer) :]
    return status
