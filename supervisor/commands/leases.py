"""``ensure``, ``ls``, ``show``, ``logs`` and ``release``: the leases of the running supervisor."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from shared.contracts import LeaseOptions
from supervisor import console
from supervisor.commands import wording
from supervisor.commands.options import (
    Parsers,
    add_home,
    add_json,
    add_lease_options,
    add_parser,
    add_request,
    lease_options,
    request,
)
from supervisor.errors import ReleasesFailed, SurvivorsError
from supervisor.views import LeaseReleased, LeaseView

if TYPE_CHECKING:
    from supervisor.client import SupervisorClient

Outcomes = tuple[list[LeaseReleased], SurvivorsError | ReleasesFailed | None]
LIST_HEAD = (
    "LEASE", "OWNER", "GROUP", "PROVIDER", "MODEL", "STATE", "HEALTH", "PROCESSES", "MEMORY", "AGE", "EXPIRES IN",
)  # fmt: skip


def add_parsers(parsers: Parsers) -> None:
    """Add them."""
    parser = add_parser(parsers, "ensure", ensure, "lease an endpoint; its token is shown this once")
    add_home(parser)
    add_request(parser)
    add_lease_options(parser, LeaseOptions())
    parser.add_argument("--idempotency-key", metavar="KEY", help="the same key gives the same lease again")
    form = parser.add_mutually_exclusive_group()
    add_json(form)
    form.add_argument("--env", action="store_true", help='print exports for a shell: eval "$(... --env)"')

    parser = add_parser(parsers, "ls", list_leases, "list leases, their processes and health")
    add_home(parser)
    add_json(parser)
    parser.add_argument("--all", action="store_true", help="ended leases too, and why they ended")
    _add_selection(parser, "list only")

    parser = add_parser(parsers, "show", show, "tell all about one lease, also after its end")
    add_home(parser)
    parser.add_argument("lease_ref", metavar="LEASE_REF")

    parser = add_parser(parsers, "logs", print_log, "print the end of a lease's log, also after its end")
    add_home(parser)
    parser.add_argument("lease_ref", metavar="LEASE_REF")

    parser = add_parser(parsers, "release", release, "end leases, and prove that nothing is left of them")
    add_home(parser)
    add_json(parser)
    parser.add_argument("lease_refs", nargs="*", metavar="LEASE_REF")
    _add_selection(parser, "instead of LEASE_REF: end at once")
    parser.set_defaults(parser=parser)


def _add_selection(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--group", metavar="NAME", help=f"{what} the leases of this group")
    parser.add_argument("--owner", metavar="NAME", help=f"{what} the leases of this identity")


def ensure(options: argparse.Namespace) -> int:
    """Lease and print. A lease whose token could not be printed is of no use and is released at once."""
    from supervisor.client import SupervisorClient

    with SupervisorClient.from_home(options.home) as client:
        with console.progress(f"leasing {options.provider} {options.model} ..."):
            descriptor, compatibility = client.ensure_endpoint(
                request(options), lease=lease_options(options), idempotency_key=options.idempotency_key
            )
        try:
            if options.json:
                console.print_json({"endpoint": descriptor, "compatibility": compatibility})
            elif options.env:
                print(wording.exports(descriptor))
            else:
                shown_once = f"{wording.token(descriptor)}  (the API key; shown this once)"
                console.print_fields({**wording.summary(descriptor), "token": shown_once})
            sys.stdout.flush()
        except OSError:
            if options.idempotency_key is None:
                client.release_endpoint(descriptor)
            raise
    return 0


def list_leases(options: argparse.Namespace) -> int:
    """Print the leases that have not ended, or all that the journal knows."""
    from supervisor.client import SupervisorClient

    with SupervisorClient.from_home(options.home) as client:
        views = client.endpoints(group=options.group, owner=options.owner, ended=options.all)
    console.print_list(views, LIST_HEAD, _row, as_json=options.json, otherwise="no leases")
    return 0


def _row(view: LeaseView) -> tuple[str, ...]:
    return (
        view.lease_ref,
        view.owner,
        view.group or "-",
        view.provider,
        view.model,
        f"{view.state} ({': '.join(filter(None, (view.cause, view.detail)))})" if view.cause else view.state,
        wording.health(view),
        str(len(view.processes)),
        f"{view.rss_bytes / 2**20:.0f} MiB",
        wording.duration(max(0.0, time.time() - view.created_at)),
        "-" if view.expires_in_s is None else wording.duration(view.expires_in_s),
    )


def show(options: argparse.Namespace) -> int:
    """Print one lease as JSON: state, cause, usage, processes, and the proof of its end."""
    from supervisor.client import SupervisorClient

    with SupervisorClient.from_home(options.home) as client:
        console.print_json(client.endpoint(options.lease_ref))
    return 0


def print_log(options: argparse.Namespace) -> int:
    """Print the log's end as it is, but for control characters."""
    from supervisor.client import SupervisorClient

    with SupervisorClient.from_home(options.home) as client:
        for line in client.log(options.lease_ref).splitlines():
            print(console.plain(line))
    return 0


def release(options: argparse.Namespace) -> int:
    """Release all that are named, even when one fails. Raises SurvivorsError or ReleasesFailed afterwards."""
    from supervisor.client import SupervisorClient

    is_selected = options.group is not None or options.owner is not None
    if is_selected == bool(options.lease_refs):
        options.parser.error("either LEASE_REF, or --group and --owner, are required")
    with SupervisorClient.from_home(options.home) as client:
        outcomes, failure = (
            _release_selected(client, options) if is_selected else _release_each(client, options)
        )
    if options.json:
        console.print_json(outcomes)
    elif outcomes:
        for outcome in outcomes:
            print(wording.outcome_line(outcome))
    else:
        print("no leases")
    if failure is not None:
        raise failure
    return 0


def _release_each(client: SupervisorClient, options: argparse.Namespace) -> Outcomes:
    outcomes: list[LeaseReleased] = []
    failure: SurvivorsError | None = None
    for lease_ref in options.lease_refs:
        try:
            with console.progress(f"releasing {lease_ref} ..."):
                proof = client.release_endpoint(lease_ref).proof
            outcomes.append(LeaseReleased(lease_ref=lease_ref, released=True, proof=proof))
        except SurvivorsError as error:
            failure = error
            outcomes.append(LeaseReleased(lease_ref=lease_ref, released=False, proof=error.proof))
    return outcomes, failure


def _release_selected(client: SupervisorClient, options: argparse.Namespace) -> Outcomes:
    try:
        with console.progress("releasing ..."):
            return client.release_endpoints(group=options.group, owner=options.owner), None
    except ReleasesFailed as error:
        return list(error.endpoints), error
