"""The same kinds of isolation as the process suite's."""

from __future__ import annotations

from tests.process.conftest import isolation, isolation_name

__all__ = ["isolation", "isolation_name"]
