"""Image parts of a message: only such as are in the request itself; nothing is ever fetched. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from shared.errors import RequestError
from shared.sansio import Image
from worker.parameters import unsupported

MAX_IMAGES = 16
MAX_IMAGE_BYTES = 5 * 1024 * 1024
DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,", re.ASCII)
SIGNATURES: Mapping[str, re.Pattern[bytes]] = {
    "image/gif": re.compile(rb"GIF8[79]a"),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
}
"""How the bytes of each type begin."""


def read_image(part: Mapping[str, Any], where: str, types: tuple[str, ...]) -> Image:
    """The image of an ``image_url`` part, for a command line that takes these media types; before all text, so far.

    Raises RequestError ``unsupported_parameter`` or ``invalid_request``.
    """
    if not types:
        raise unsupported(where)
    image_url = part.get("image_url")
    url = image_url.get("url") if isinstance(image_url, Mapping) else image_url
    if not isinstance(url, str):
        raise _invalid(where, "must hold a url")
    match = DATA_URL.match(url)
    if match is None:
        raise unsupported(where, "must be a data: URL in base64, because nothing is fetched")
    media_type, content = match[1].lower(), url[match.end() :]
    if media_type not in types:
        raise unsupported(where, f"must be one of {', '.join(types)}, not {media_type[:64]}")
    _check(content, media_type, where)
    return Image(media_type=media_type, base64=content, at=0)


def _check(content: str, media_type: str, where: str) -> None:
    if len(content) > MAX_IMAGE_BYTES * 4 // 3 + 4:
        raise RequestError(
            "request_too_large", f"{where} exceeds the {MAX_IMAGE_BYTES}-byte limit of an image", param=where
        )
    try:
        data = base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise _invalid(where, "is not valid base64") from None
    if not SIGNATURES[media_type].match(data):
        raise _invalid(where, f"does not hold {media_type}")


def _invalid(where: str, cause: str) -> RequestError:
    return RequestError("invalid_request", f"{where} {cause}", param=where)
