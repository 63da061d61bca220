"""`okng serve`: verdicts over HTTP, kept in a store. Needs the extra `serve`."""

from okng.serve.app import create_app
from okng.serve.settings import Settings

__all__ = ["Settings", "create_app"]
