"""`python -m okng` is `okng`."""

from okng.cli import program

program()
