"""When a caller who was refused should come back: never all of them at the same moment. Pure."""


def jittered(base_s: float, chance: float) -> float:
    """Between ``base_s`` and twice that; ``chance`` is from 0 to 1."""
    return base_s * (1 + chance)
