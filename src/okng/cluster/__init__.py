"""Many machines, by Ray: images are inspected by actors (`inspector.py`), a fit of a table is a task (`fits.py`)."""
