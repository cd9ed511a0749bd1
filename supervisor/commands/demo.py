"""``demo``: one lease from beginning to proven end, on an embedded supervisor."""

from __future__ import annotations

import argparse

from shared import provider
from shared.contracts import EndpointDescriptor
from supervisor import console
from supervisor.commands import wording
from supervisor.commands.options import Parsers, add_parser, request


def add_parsers(parsers: Parsers) -> None:
    """Add ``demo``."""
    parser = add_parser(parsers, "demo", demo, "lease, complete, stream and release, all by itself")
    parser.add_argument("--provider", default="echo", help="default: %(default)s, which needs no login")
    parser.add_argument("--model", help="the provider's name of the model (default: a cheap one)")
    parser.add_argument("--message", default="Say hello to the world", help="default: %(default)s")
    parser.set_defaults(stream=True)


def demo(options: argparse.Namespace) -> int:
    """Show what a lease is; it is released whatever happens."""
    from supervisor.embedded import InferenceEndpoint

    options.model = options.model or provider.load(options.provider).example_model
    with console.progress("starting a supervisor ..."):
        endpoint = InferenceEndpoint()
    with endpoint:
        with console.progress(f"leasing {options.provider} {options.model} ..."):
            descriptor, _ = endpoint.ensure_endpoint(request(options))
        try:
            _show(descriptor, options.message)
        finally:
            with console.progress("releasing ..."):
                released = endpoint.release_endpoint(descriptor)
            print(wording.proof_line(descriptor.lease_ref, released))
    return 0


def _show(descriptor: EndpointDescriptor, message: str) -> None:
    from supervisor.commands.chat import Chat

    console.print_fields({**wording.summary(descriptor), "token": "<redacted>"})
    with Chat(descriptor) as chat:
        print("\ncompletion:", flush=True)
        with console.progress("waiting for the answer ..."):
            answer = chat.complete(message)
        print(answer)
        print("\nstreamed completion:", flush=True)
        for piece in chat.stream(message):
            print(piece, end="", flush=True)
        print("\n")
