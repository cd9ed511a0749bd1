"""The commands of ``asm-endpoint``, one module per group.

Each module adds its parsers with ``add_parsers`` and imports what its commands need inside them: ``serve`` should not
pay for a client. A command takes the parsed options and returns an exit code; what goes wrong it raises, and
``supervisor.cli`` alone turns errors into lines and codes.
"""
