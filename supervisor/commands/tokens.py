"""``token``: the named API tokens of the running supervisor."""

from __future__ import annotations

import argparse
import datetime
from typing import TYPE_CHECKING, Any

from supervisor import console
from supervisor.commands import wording
from supervisor.commands.options import Parsers, add_home, add_json, add_parser

if TYPE_CHECKING:
    from supervisor.views import TokenView

LIST_HEAD = ("NAME", "EXPIRES", "MAX LEASES", "MAX TTL", "PROVIDERS", "MODELS")
LIMITS = ("max_leases", "max_ttl_s", "providers", "models")


def add_parsers(parsers: Parsers) -> None:
    """Add ``token`` with its own commands."""
    token = parsers.add_parser(
        "token", help="add, list, replace and revoke named API tokens", allow_abbrev=False
    )
    actions = token.add_subparsers(metavar="ACTION", required=True)

    parser = _add_action(actions, "add", add, "add a token for a new identity; it is shown this once")
    parser.add_argument(
        "--expires-in", type=float, dest="expires_in_s", metavar="S", help="refuse it after this time"
    )
    parser.add_argument("--max-leases", type=int, metavar="N", help="leases at once")
    parser.add_argument("--max-ttl-s", type=float, metavar="S", help="the longest time to live of a lease")
    for name in ("provider", "model"):
        parser.add_argument(
            f"--{name}",
            action="append",
            dest=f"{name}s",
            metavar=name.upper(),
            help=f"only this {name} (repeatable)",
        )

    _add_action(
        actions, "ls", list_tokens, "list the named tokens; never the tokens themselves", takes_name=False
    )

    _add_action(actions, "rotate", rotate, "replace a token (also the admin's) by a new one, shown this once")

    parser = _add_action(
        actions, "revoke", revoke, "refuse a token from now on; its leases live on to their own end"
    )
    parser.add_argument("--release", action="store_true", help="end its leases too, and prove it")


def _add_action(
    actions: Parsers, name: str, command: Any, summary: str, *, takes_name: bool = True
) -> argparse.ArgumentParser:
    parser = add_parser(actions, name, command, summary)
    parser.set_defaults(command_name=f"token {name}")
    add_home(parser)
    add_json(parser)
    if takes_name:
        parser.add_argument(
            "name", metavar="NAME", help="the identity: letters, digits, dots, dashes, underscores"
        )
    return parser


def add(options: argparse.Namespace) -> int:
    """Add and print."""
    from supervisor.client import SupervisorClient

    limits = {name: value for name in LIMITS if (value := getattr(options, name)) is not None}
    with SupervisorClient.from_home(options.home) as client:
        new = client.add_token(options.name, expires_in_s=options.expires_in_s, limits=limits)
    return _show(new.name, new.token, new.expires_at, options)


def rotate(options: argparse.Namespace) -> int:
    """Replace and print."""
    from supervisor.client import SupervisorClient

    with SupervisorClient.from_home(options.home) as client:
        new = client.rotate_token(options.name)
    return _show(new.name, new.token, new.expires_at, options)


def _show(name: str, token: str, expires_at: float | None, options: argparse.Namespace) -> int:
    if options.json:
        console.print_json({"name": name, "token": token, "expires_at": expires_at})
    else:
        shown_once = f"{token}  (shown this once)"
        console.print_fields({"name": name, "token": shown_once, "expires": _date(expires_at)})
    return 0


def list_tokens(options: argparse.Namespace) -> int:
    """Print who may ask beside the admin."""
    from supervisor.client import SupervisorClient

    with SupervisorClient.from_home(options.home) as client:
        views = client.tokens()
    console.print_list(views, LIST_HEAD, _row, as_json=options.json, otherwise="no tokens")
    return 0


def revoke(options: argparse.Namespace) -> int:
    """Revoke, and print the proofs of what was released. Raises ReleasesFailed afterwards."""
    from supervisor.client import SupervisorClient
    from supervisor.errors import ReleasesFailed

    failure: ReleasesFailed | None = None
    with SupervisorClient.from_home(options.home) as client, console.progress(f"revoking {options.name} ..."):
        try:
            released = client.revoke_token(options.name, release=options.release)
        except ReleasesFailed as error:
            failure, released = error, list(error.endpoints)
    if options.json:
        console.print_json({"revoked": True, "endpoints": released})
    else:
        print(f"revoked {options.name}")
        for each in released:
            print(wording.outcome_line(each))
    if failure is not None:
        raise failure
    return 0


def _row(view: TokenView) -> tuple[str, ...]:
    limits = view.limits
    return (
        view.name,
        f"{_date(view.expires_at)}{' (expired)' if view.is_expired else ''}",
        "-" if limits.max_leases is None else str(limits.max_leases),
        "-" if limits.max_ttl_s is None else f"{limits.max_ttl_s:g} s",
        ", ".join(limits.providers or ("-",)),
        ", ".join(limits.models or ("-",)),
    )


def _date(at: float | None) -> str:
    if at is None:
        return "never"
    moment = datetime.datetime.fromtimestamp(at, datetime.UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
