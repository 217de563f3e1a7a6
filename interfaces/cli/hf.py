"""`hostledger hf VERB -f FILE`: the very code of the scripts, for trying a verb by hand; and what
getRequestStatus would have answered at an earlier time."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial

from application import as_of
from interfaces.cli import options
from interfaces.hostfactory import verbs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("verb", choices=(*verbs.READS, *verbs.WRITES), metavar="VERB")
    parser.add_argument("-f", dest="file", required=True, metavar="FILE", help="the JSON input")
    parser.add_argument("--provider", type=options.text, metavar="NAME")
    parser.add_argument("--config", type=options.text, metavar="FILE")
    parser.set_defaults(store=None)
    options.add_as_of(parser)


def run(arguments: argparse.Namespace) -> int:
    """The verb reads HostFactory's environment: what the options say goes there."""
    if arguments.as_of is not None:
        return _status_then(arguments)
    os.environ.update(options.environ_of(arguments))
    site = options.site_of(arguments)
    os.environ["HF_PROVIDER_NAME"] = site.provider
    os.environ["HF_PROVIDER_CONFDIR"] = site.conf_dir
    os.environ["HF_PROVIDER_WORKDIR"] = site.work_dir
    os.environ["HF_PROVIDER_LOGDIR"] = site.log_dir
    return verbs.main(sys.executable, arguments.verb, "-f", arguments.file)


def _status_then(arguments: argparse.Namespace) -> int:
    """Answer as HostFactory was or would have been answered. Nothing is noted of it."""
    from interfaces.hostfactory.reads import statuses
    from interfaces.hostfactory.wire_format import BadInput, asked_requests, read_input

    if arguments.verb != "getRequestStatus":
        print("hostledger: --as-of is for getRequestStatus alone", file=sys.stderr)
        return 2
    try:
        ids = asked_requests(*read_input(arguments.file))
    except BadInput as error:
        print(f"hostledger: {error}", file=sys.stderr)
        return 1
    with options.looking(arguments, partial(as_of.requests, ids)) as view:
        print(statuses(view.read_model(), ids))
    return 0
