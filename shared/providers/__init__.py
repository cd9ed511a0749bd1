"""One file per command line, discovered by :mod:`shared.provider`. A new provider is one new file in here."""
