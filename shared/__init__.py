"""What supervisor and worker both know: contracts, events, errors, the launch protocol and the providers.

Nothing in here imports ``supervisor`` or ``worker``.
"""
