"""``python -m supervisor`` is ``asm-endpoint``."""

from supervisor.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
