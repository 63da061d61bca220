"""Unlabelled images that score one another: no OK images, no model, and no promise."""
