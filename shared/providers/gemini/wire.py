"""What ``gemini --acp`` prints: JSON-RPC 2.0 lines, of which only the fields that are read. Recorded with 0.61.0."""

from __future__ import annotations

import msgspec


class TokenCount(msgspec.Struct):
    """Tokens of one turn."""

    input_tokens: int = 0
    output_tokens: int = 0


class Quota(msgspec.Struct):
    """What the turn used; ``model_usage`` is empty when no model answered to the end."""

    token_count: TokenCount = msgspec.field(default_factory=TokenCount)
    model_usage: list[msgspec.Raw] = []


class Meta(msgspec.Struct):
    """gemini's addition to ACP."""

    quota: Quota = msgspec.field(default_factory=Quota)


class RpcResult(msgspec.Struct, rename="camel"):
    """The fields of the results that we read."""

    session_id: str | None = None
    stop_reason: str | None = None
    meta: Meta = msgspec.field(default_factory=Meta, name="_meta")


class RpcError(msgspec.Struct):
    """``code`` is the model service's HTTP status, or JSON-RPC's own."""

    code: int = 0
    message: str = "no message"


class Content(msgspec.Struct):
    """A piece of text."""

    text: str = ""


class Update(msgspec.Struct, rename="camel"):
    """What a session has to tell."""

    session_update: str
    content: Content | msgspec.UnsetType = msgspec.UNSET
    title: str = ""


class SessionParams(msgspec.Struct, rename="camel"):
    """Of a notification or a request to us."""

    session_id: str = ""
    update: msgspec.Raw = msgspec.Raw(b"{}")


class Line(msgspec.Struct):
    """A response, a notification, or a request to us."""

    id: int | str | None = None
    method: str | None = None
    params: SessionParams | None = None
    result: RpcResult | None = None
    error: RpcError | None = None


decode_line = msgspec.json.Decoder(Line).decode
decode_update = msgspec.json.Decoder(Update).decode
encode = msgspec.json.Encoder().encode
