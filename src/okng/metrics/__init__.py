"""How well raw scores rank images (AUROC, AP, F1-max) and pixels (AUROC, AUPRO)."""

from okng.metrics.ranking import F1Max, auroc, average_precision, f1_max
from okng.metrics.regions import PixelMetrics, StreamingPixelMetrics, aupro, pixel_auroc, pixel_metrics

__all__ = [
    "F1Max",
    "PixelMetrics",
    "StreamingPixelMetrics",
    "aupro",
    "auroc",
    "average_precision",
    "f1_max",
    "pixel_auroc",
    "pixel_metrics",
]
