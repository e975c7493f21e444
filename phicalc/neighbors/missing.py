"""The error of an engine whose library is missing."""


def missing(name: str, command: str, error: Exception) -> ImportError:
    """Say what to install."""
    return ImportError(
        f"the neighbor engine {name!r} needs a library that cannot be imported ({error}); "
        f"install it with: {command}, or use engine='vesin'"
    )
