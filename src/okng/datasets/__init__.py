"""Data sets: what lies in a folder, found by itself, described before anything is learned from it."""

from okng.datasets.base import NG, OK, Dataset, Sample
from okng.datasets.describe import describe
from okng.datasets.detect import open_dataset

__all__ = ["NG", "OK", "Dataset", "Sample", "describe", "open_dataset"]
