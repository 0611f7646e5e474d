"""Training: cohorts made ready, one loop for every method, experiments."""
