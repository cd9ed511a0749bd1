"""Who asks, and what that one may do: one struct, made by the API's middleware and handed to every call. Pure."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from shared.contracts import MAX_TTL_S, Count, LeaseOptions, NonEmpty
from shared.errors import RequestError

ADMIN_NAME = "admin"
DEFAULT_TTL_S = LeaseOptions().ttl_s
SomeNames = Annotated[tuple[NonEmpty, ...], Meta(min_length=1)]


class CallerLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an identity may have; None is no limit of its own. An unknown limit may be misspelt: an error."""

    max_leases: Count | None = None
    """Leases that have not ended, at once."""
    max_ttl_s: Annotated[float, Meta(ge=1, le=MAX_TTL_S)] | None = None
    """Of one lease, and of each renewal of it."""
    providers: SomeNames | None = None
    models: SomeNames | None = None
    """Ids exactly as a request must give them."""

    def within_ttl(self, options: LeaseOptions) -> LeaseOptions:
        """The options; the default time to live, which nobody asked for, becomes the longest allowed.

        Raises RequestError ``not_permitted`` for a longer one that was asked for.
        """
        if self.max_ttl_s is not None and options.ttl_s == DEFAULT_TTL_S:
            return msgspec.structs.replace(options, ttl_s=min(DEFAULT_TTL_S, self.max_ttl_s))
        self.require_ttl(options.ttl_s)
        return options

    def require_ttl(self, ttl_s: float) -> None:
        """Do nothing for a time to live that is allowed.

        Raises RequestError ``not_permitted``, with the longest that is, ``max_ttl_s``, in its details.
        """
        if self.max_ttl_s is not None and ttl_s > self.max_ttl_s:
            raise RequestError(
                "not_permitted",
                f"cannot lease for {ttl_s:g} s: this token may for at most {self.max_ttl_s:g} s",
                param="ttl_s",
                details={"max_ttl_s": self.max_ttl_s},
            )

    def require_model(self, provider: str, model: str) -> None:
        """Do nothing for a provider and a model that are allowed. Raises RequestError ``not_permitted``."""
        for noun, wanted, allowed in (("provider", provider, self.providers), ("id", model, self.models)):
            if allowed is not None and wanted not in allowed:
                raise RequestError(
                    "not_permitted",
                    f"cannot lease {wanted!r}: this token may lease {', '.join(allowed)}",
                    param=f"model_preference.{noun}",
                )


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """One identity. ``name`` is what the leases it makes are owned by."""

    name: str
    is_admin: bool = False
    limits: CallerLimits = CallerLimits()

    def may_see(self, owner: str) -> bool:
        """Whether that identity's leases exist for this caller; the admin sees all, everybody else its own."""
        return self.is_admin or owner == self.name


ADMIN = Caller(name=ADMIN_NAME, is_admin=True)


def unauthorized() -> RequestError:
    """The one answer to no token, an unknown, an expired and a revoked one: nobody learns which it was."""
    return RequestError(
        "unauthorized",
        "unauthorized: no token, or an unknown, expired or revoked one; the admin's is in the state folder's "
        "admin.token, others are given by `asm-endpoint token add`",
    )
