"""Registration of one pair of images, without training."""
