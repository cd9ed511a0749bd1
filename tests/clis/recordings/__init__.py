"""Recordings of the real command lines: made over the scripted model, replayed by tests, compared between versions."""
