"""The stream-json protocol of ``claude -p``, without I/O: what goes in, what comes out, and one turn between them.

It is no provider's own, because two speak it: claude, and echo, whose program answers in the same lines. Measured on
claude 2.1.330, recorded in ``tests/transcripts/claude``.
"""
