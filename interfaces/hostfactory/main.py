"""The five verbs: `main.py PYTHON VERB -f FILE`, run by the scripts on a bare interpreter.

stdout is one JSON object; exit 0 means done, 1 means failed with {"message": ...}. `PYTHON` is the
interpreter of the installation, for what a bare one cannot do (start a worker, validate templates).
"""

from __future__ import annotations

import os
import sys

READS = ("getAvailableTemplates", "getRequestStatus", "getReturnRequests")
WRITES = ("requestMachines", "requestReturnMachines")


def run(verb: str, arguments: list[str], python: str) -> tuple[int, str]:
    """Exit status and the text for stdout."""
    from infrastructure.json_text import dumps
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

        return 0, VERBS[verb](Call(verb, os.environ, python), document, path)
    except BadInput as error:
        return 1, dumps({"message": str(error)})
    except Exception as error:
        from interfaces.hostfactory.failures import explain

        return 1, dumps({"message": explain(verb, error)})


def main(argv: list[str]) -> int:
    """Run a verb and write its answer; the exit status."""
    python, verb, *arguments = argv
    status, text = run(verb, arguments, python)
    answer = (text + "\n").encode(errors="replace")
    while answer:
        answer = answer[os.write(1, answer) :]
    return status


def find_packages(python: str) -> None:
    """Let a bare interpreter find this code, and the installation's libraries behind it."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.path.insert(0, root)
    installation = os.path.dirname(os.path.dirname(os.path.abspath(python)))
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    sys.path.append(f"{installation}/lib/{version}/site-packages")


if __name__ == "__main__":
    find_packages(sys.argv[1])
    # Nothing is left to be cleaned up: tearing the interpreter down would cost a fifth of the call.
    os._exit(main(sys.argv[1:]))
