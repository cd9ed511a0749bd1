"""``ensure``, ``ls`` and ``release``: the leases of the running supervisor."""

from __future__ import annotations

import argparse
import sys
from typing import Any

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
from supervisor.errors import SurvivorsError
from supervisor.views import LeaseView, Released

LIST_HEAD = ("LEASE", "PROVIDER", "MODEL", "STATE", "HEALTH", "PROCESSES", "MEMORY", "EXPIRES IN")


def add_parsers(parsers: Parsers) -> None:
    """Add ``ensure``, ``ls`` and ``release``."""
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
    parser.add_argument("--all", action="store_true", help="closed leases too")

    parser = add_parser(parsers, "release", release, "end leases, and prove that nothing is left of them")
    add_home(parser)
    add_json(parser)
    parser.add_argument("lease_refs", nargs="+", metavar="LEASE_REF")


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
    """Print the leases that have not ended, or all that the supervisor remembers."""
    from supervisor.client import SupervisorClient

    with SupervisorClient.from_home(options.home) as client:
        views = [view for view in client.endpoints() if options.all or view.state != "closed"]
    if options.json:
        console.print_json(views)
    elif views:
        console.print_table(LIST_HEAD, map(_row, views))
    else:
        print("no leases")
    return 0


def _row(view: LeaseView) -> tuple[str, ...]:
    return (
        view.lease_ref,
        view.provider,
        view.model,
        f"{view.state} ({view.cause})" if view.cause else view.state,
        view.health,
        str(len(view.processes)),
        f"{view.rss_bytes / 2**20:.0f} MiB",
        "-" if view.expires_in_s is None else f"{view.expires_in_s:.0f} s",
    )


def release(options: argparse.Namespace) -> int:
    """Release all that are named, even when one fails. Raises SurvivorsError afterwards."""
    from supervisor.client import SupervisorClient

    outcomes: dict[str, Released] = {}
    failure: SurvivorsError | None = None
    with SupervisorClient.from_home(options.home) as client:
        for lease_ref in options.lease_refs:
            try:
                with console.progress(f"releasing {lease_ref} ..."):
                    outcomes[lease_ref] = client.release_endpoint(lease_ref)
            except SurvivorsError as error:
                failure = error
                outcomes[lease_ref] = Released(released=False, proof=error.proof)
    if options.json:
        console.print_json([_outcome(*item) for item in outcomes.items()])
    else:
        for item in outcomes.items():
            print(wording.proof_line(*item))
    if failure is not None:
        raise failure
    return 0


def _outcome(lease_ref: str, released: Released) -> dict[str, Any]:
    return {"lease_ref": lease_ref, "released": released.released, "proof": released.proof}
