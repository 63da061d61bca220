"""Figures for Prometheus."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from okng.inspection.verdict.result import Inspection

if TYPE_CHECKING:
    from okng.serve.models import Shelf
    from okng.store import Store

disable_created_metrics()
SIZED = 600.0  # seconds for which the store's size is told again
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counted since the server began; a registry of its own, so that several servers fit into one process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._sized = -SIZED - 1
        self.images = Counter("okng_inspections", "Inspected images", ["model", "verdict"], registry=registry)
        self.unreadable = Counter("okng_unreadable", "Images that could not be read", registry=registry)
        self.refused = Counter("okng_refused", "Requests sent away because too many came at once", registry=registry)
        self.seconds = Histogram(
            "okng_engine_seconds", "Time of the engine for an image", buckets=BUCKETS, registry=registry
        )
        self.request = Histogram(
            "okng_request_seconds", "Time of a request to inspect", buckets=BUCKETS, registry=registry
        )
        self.inside = Gauge("okng_requests_inside", "Requests that are worked on", registry=registry)
        self.version = Gauge("okng_model_version", "The active version", ["model"], registry=registry)
        self.waiting = Gauge("okng_deliveries_waiting", "What a sink has not had yet", ["sink"], registry=registry)
        self.aside = Gauge("okng_deliveries_set_aside", "What a sink has refused", ["sink"], registry=registry)
        self.kept_bytes = Gauge("okng_store_bytes", "What records take in the store, about", registry=registry)

    def inspected(self, model: str, inspection: Inspection) -> None:
        """One image."""
        self.images.labels(model, inspection.verdict).inc()
        self.seconds.observe(inspection.timing.get("score", 0.0) / 1000)

    def page(self, inside: int, shelf: Shelf, store: Store) -> bytes:
        """All figures in Prometheus' text format."""
        self.inside.set(inside)
        for name in shelf.names():
            self.version.labels(name).set(shelf.get(name).version.version)
        self.waiting.clear()
        for sink, (count, _) in store.deliveries.waiting().items():
            self.waiting.labels(sink).set(count)
        self.aside.clear()
        for sink, (count, _) in store.deliveries.aside().items():
            self.aside.labels(sink).set(count)
        if time.monotonic() - self._sized > SIZED:  # of millions of records it takes seconds
            self._sized = time.monotonic()
            self.kept_bytes.set(store.retention.size())
        return generate_latest(self.registry)
