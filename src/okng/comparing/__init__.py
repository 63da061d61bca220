"""Many methods on the same images: what each finds, what it costs, and which differences are more than chance."""

from okng.comparing.comparison import Comparison, compare

__all__ = ["Comparison", "compare"]
