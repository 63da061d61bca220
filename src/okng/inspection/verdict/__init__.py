"""What is said of an image by its scores: OK or NG, why, where, and whether it is like what was learnt."""
