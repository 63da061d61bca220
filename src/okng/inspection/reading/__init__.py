"""How an image gets from a path, a file in memory or an array to the pixels that an engine takes."""
