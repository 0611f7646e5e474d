"""One page that says how a registration went."""
