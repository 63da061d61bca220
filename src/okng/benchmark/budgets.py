"""The arguments each detector is given for a table: "cpu" is minutes per fit on one core, "paper" its defaults.

Chosen by the papers, by what an epoch costs and by OK images, never by test labels. `size` and `holdout` are those of
`okng.fit`, all else the detector's own.
"""

from __future__ import annotations

from typing import Any

BUDGETS = ("cpu", "paper")
HOLDOUT = 0.1  # of the OK images: they calibrate, which no AUROC uses

# Images of 28 to 32 px: MNIST, Fashion-MNIST, CIFAR-10, COCO crops.
SMALL: dict[str, dict[str, Any]] = {
    "autoencoder": {"code": 32, "epochs": 10, "batch_size": 32, "learning_rate": 1e-3},
    "vgg11_classifier": {"width": 16, "epochs": 40},
}

# Photographs of a few hundred images per fit: MVTec AD, magnetic tile, video frames.
LARGE: dict[str, dict[str, Any]] = {
    "autoencoder": {"size": 128, "code": 100, "epochs": 60, "batch_size": 16, "learning_rate": 1e-3},
}


def arguments_for(budget: str, detector: str, small: bool) -> dict[str, Any] | None:
    """What `detector` is given on small or large images; None where nobody has chosen it yet."""
    if budget == "paper":
        return {}
    return (SMALL if small else LARGE).get(detector)
