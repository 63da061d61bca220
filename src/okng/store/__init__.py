"""What was inspected, kept: records, what people said of them, who may what, and what is still to be delivered.

SQLite by default, PostgreSQL by URL. Needs the extra `serve`.
"""

from okng.store.records import ModelUsed
from okng.store.store import Store, StoreError

__all__ = ["ModelUsed", "Store", "StoreError"]
