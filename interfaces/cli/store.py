"""`hostledger store init | status | activate | copy | backup | restore | archive | ...`."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import closing
from typing import Any

from application import queries
from application.failures import NotConfigured, StoreError
from interfaces.cli import options, output
from interfaces.read_side import register, site_from, worker_status

PLACES = {
    "conf_dir": ("HF_PROVIDER_CONFDIR", "PRO_CONF_DIR"),
    "work_dir": ("HF_PROVIDER_WORKDIR", "PRO_DATA_DIR"),
    "log_dir": ("HF_PROVIDER_LOGDIR", "PRO_LSF_LOGDIR"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    making = options.add_action(
        actions, "init", init, "make the store of a new deployment, once, and register the instance"
    )
    for option, (variable, _) in PLACES.items():
        making.add_argument(
            f"--{option.replace('_', '-')}",
            type=options.text,
            metavar="DIR",
            help=f"outside HostFactory's environment: its {variable}",
        )
    making.add_argument(
        "--join", type=options.text, metavar="PATH", help="register only, with the store at PATH"
    )
    options.add_action(actions, "status", status, "identity, worker, lease and what is open")
    activating = options.add_action(
        actions, "activate", activate, "make a copied or restored store the living one"
    )
    options.add_reason(activating)
    activating.add_argument(
        "--again",
        action="store_true",
        help="although it lives, or was moved: raise its incarnation",
    )
    copying = options.add_action(
        actions, "copy", copy, "take the history to another store, whole or what it lacks yet"
    )
    copying.add_argument(
        "--from",
        dest="origin",
        type=options.text,
        metavar="PLACE",
        help="the store that is copied (default: the instance's own)",
    )
    copying.add_argument(
        "--to",
        type=options.text,
        metavar="PLACE",
        required=True,
        help="sqlite:/FILE, json:/DIR, postgresql://USER@HOST/NAME or "
        "dynamodb://REGION/PREFIX?endpoint=URL",
    )
    copying.add_argument(
        "--seal",
        action="store_true",
        help="end the store that is copied and go on in the copy, which lives from then on",
    )
    options.add_reason(copying, required=False)
    options.add_archive(copying)
    saving = options.add_action(
        actions, "backup", backup, "copy the store to a new SQLite file while it is in use"
    )
    saving.add_argument("file", type=options.text, metavar="FILE", help="a file that is not there")
    restoring = options.add_action(
        actions, "restore", restore, "fill an empty place from a backup; then activate it"
    )
    restoring.add_argument("file", type=options.text, metavar="FILE", help="a backup")
    options.add_archive(restoring)
    archiving = options.add_action(
        actions, "archive", archive, "move what is over and old out of the store into a file"
    )
    archiving.add_argument(
        "--to",
        type=options.text,
        required=True,
        metavar="FILE",
        help="a file that is not there, or the one that was begun",
    )
    archiving.add_argument(
        "--before",
        type=options.time,
        metavar="TIME",
        help="what was over by then (default: as retention.days says)",
    )
    options.add_reason(archiving)
    options.add_action(actions, "migrate", migrate, "bring the schema up to date")
    options.add_action(actions, "compact", compact, "give unused room back, count statistics anew")


def run(arguments: argparse.Namespace) -> int:
    return arguments.act(arguments)  # type: ignore[no-any-return]


def _site(arguments: argparse.Namespace) -> Any:
    """The instance that the options and HostFactory's environment name between them."""
    environ = dict(os.environ)
    named = environ.get("HF_PROVIDER_NAME") or environ.get("PROVIDER_NAME")
    if arguments.provider and arguments.provider != named:
        # Another instance than the environment's: its places are not this one's.
        for variables in PLACES.values():
            for variable in variables:
                environ.pop(variable, None)
        environ["HF_PROVIDER_NAME"] = arguments.provider
    for option, (variable, _) in PLACES.items():
        place = getattr(arguments, option)
        if place:
            environ[variable] = place
    try:
        return site_from(environ)
    except NotConfigured as error:
        raise NotConfigured(
            f"{error}; without it give --provider, --conf-dir, --work-dir and --log-dir"
        ) from None


def init(arguments: argparse.Namespace) -> int:
    site = _site(arguments)
    if arguments.join:
        deployment, path = _join(arguments, site)
    else:
        from interfaces.write_side.stores import create

        side = options.writing(arguments, site)
        deployment, path = create(side)
        for warning in getattr(side.storage(), "warnings", ()):
            print(f"hostledger: {warning}", file=sys.stderr)
    document = {
        "deployment": deployment,
        "path": path,
        "provider": site.provider,
        "register": register(os.environ, site),
    }
    return output.show_document(arguments, document)


def _join(arguments: argparse.Namespace, site: Any) -> tuple[str, str]:
    """Deployment id and path of a store that is there, when the instance's configuration says it.

    Raises StoreError.
    """
    from interfaces.write_side.stores import make_state_directory

    call = options.reading(arguments, site)
    if not call.storage.is_at(arguments.join):
        raise StoreError(
            f"the configuration of {site.provider} has its store at {call.storage.name}, not at "
            f"{arguments.join}: set {call.storage.place_key} to it in "
            f"{site.own_configuration(call.environ)[0]}, then join again"
        )
    with closing(call.log()) as view:
        deployment = queries.store_status(view, call.now, call.places())["deployment"]
    make_state_directory(site)
    return deployment, call.storage.name


def status(arguments: argparse.Namespace) -> int:
    call = options.reading(arguments)
    with closing(call.any_store()) as view:
        document = queries.store_status(view, call.now, call.places())
    document["provider"] = call.site.provider
    document["worker"] = worker_status(call)
    return output.show_document(
        arguments, document, failed_projections=(), accounts=(), leases=(), sweeps=()
    )


def activate(arguments: argparse.Namespace) -> int:
    from interfaces.write_side.stores import activate as make_live

    call = options.reading(arguments)
    with closing(call.any_store()) as view:
        inert, moved_to = view.inert, view.identity()[2]
    if moved_to and not arguments.again:
        raise StoreError(
            f"{call.storage.name} was moved to {moved_to}, where its history goes on: two living "
            "stores would end each other's machines; when that one is lost for good, --again "
            "activates this one"
        )
    if not inert and not arguments.again:
        raise StoreError(
            f"{call.storage.name} lives already: only a copy needs to be activated; --again raises "
            "its incarnation all the same"
        )
    incarnation, path = make_live(options.writing(arguments, call.site), arguments.reason)
    return output.show_document(arguments, {"incarnation": incarnation, "path": path})


def copy(arguments: argparse.Namespace) -> int:
    from interfaces.write_side.copies import copy_to

    side = options.writing(arguments)
    live = (arguments.reason or "moved") if arguments.seal else None
    document = copy_to(
        side, arguments.origin, arguments.to, output.Progress(), arguments.archive, live=live
    )
    if arguments.seal:
        print(
            f"hostledger: the history goes on in {document['target']}: set storage.url to it on "
            "every machine",
            file=sys.stderr,
        )
    return output.show_document(arguments, document)


def backup(arguments: argparse.Namespace) -> int:
    from interfaces.write_side.copies import backup as save

    path = save(options.writing(arguments), os.path.abspath(arguments.file))
    return output.show_document(arguments, {"path": path})


def restore(arguments: argparse.Namespace) -> int:
    from interfaces.write_side.copies import restore as fill

    document = fill(
        options.writing(arguments), arguments.file, output.Progress(), arguments.archive
    )
    print("hostledger: it is inert until `hostledger store activate`", file=sys.stderr)
    return output.show_document(arguments, document)


def archive(arguments: argparse.Namespace) -> int:
    from interfaces.write_side.stores import archive as put_away

    document = put_away(
        options.writing(arguments),
        os.path.abspath(arguments.to),
        arguments.before or "",
        arguments.reason,
        output.Progress(),
    )
    return output.show_document(arguments, document)


def migrate(arguments: argparse.Namespace) -> int:
    from interfaces.write_side.stores import migrate as bring_up_to_date

    before, now = bring_up_to_date(options.writing(arguments))
    return output.show_document(arguments, {"schema_before": before, "schema": now})


def compact(arguments: argparse.Namespace) -> int:
    from interfaces.write_side.stores import compact as give_room_back

    return output.show_document(arguments, {"done": give_room_back(options.writing(arguments))})
