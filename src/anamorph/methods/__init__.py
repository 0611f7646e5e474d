"""Methods, one paper each."""

from anamorph.methods.base import Method

METHODS: dict[str, type[Method]] = {}
"""Name on the command line -> method."""
