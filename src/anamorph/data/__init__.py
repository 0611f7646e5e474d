"""Files <-> tensors on grids."""
