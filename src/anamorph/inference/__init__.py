"""Images in, results out."""
