"""The supervisor's middleware: who gets through to which resource."""

from __future__ import annotations

import pytest
from falcon import testing
from falcon.asgi import Request, Response

from supervisor.api import create_app
from supervisor.caller import ADMIN, Caller
from supervisor.identities import Identities


class TwoTokens(Identities):
    """The admin's token is ``root``, alice's is ``alice``."""

    def __init__(self) -> None:
        pass

    def caller(self, token: str | None) -> Caller | None:
        return {"root": ADMIN, "alice": Caller(name="alice")}.get(token or "")


class Silent:
    """A resource that says nothing about who may use it."""

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.text = req.context.caller.name


class Open(Silent):
    """One that is for everybody with a token."""

    IS_FOR_EVERY_CALLER = True


@pytest.mark.parametrize(
    ("path", "token", "status", "text"),
    [
        ("/silent", "root", 200, "admin"),
        ("/silent", "alice", 403, "not_permitted"),
        ("/silent", "x", 401, "unauthorized"),
        ("/silent", None, 401, "unauthorized"),
        ("/open", "root", 200, "admin"),
        ("/open", "alice", 200, "alice"),
        ("/open", "x", 401, "unauthorized"),
        ("/open", None, 401, "unauthorized"),
        ("/nowhere", "alice", 404, "not_found"),
        ("/nowhere", None, 401, "unauthorized"),
    ],
)
def test_a_resource_is_the_admins_until_it_opens_itself(path: str, token: str | None, status: int, text: str):
    """Whoever adds a route and forgets about callers has closed it; nobody without a token learns what there is."""
    app = create_app(None, TwoTokens())  # type: ignore[arg-type]  # the service is not reached
    app.add_route("/silent", Silent())
    app.add_route("/open", Open())
    headers = {"authorization": f"Bearer {token}"} if token else {}
    answer = testing.TestClient(app).simulate_get(path, host="127.0.0.1", headers=headers)
    assert answer.status_code == status
    assert text in answer.text
