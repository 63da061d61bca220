"""A faster precision for an exported detector, calibrated at that precision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from okng.datasets import NG, OK, Dataset
from okng.errors import OkngError
from okng.exporting.onnx import differences
from okng.inspection.calibration import Calibration
from okng.inspection.engines import make_engine
from okng.inspection.inspector import Inspector
from okng.inspection.onnx_file import read_onnx
from okng.inspection.zoned import BY, WHOLE
from okng.metrics import auroc


@dataclass(frozen=True)
class Drift:
    """What a lower precision does to `images` images, `ok` of them the OK ones it was calibrated on.

    `typical` (median) and `worst` are changes of the score relative to it. `verdicts` is how many verdicts differ when
    both precisions are calibrated on the same OK images. `auroc` is by precision, None without NG images.
    """

    images: int
    ok: int
    typical: float
    worst: float
    verdicts: int
    auroc: dict[str, float] | None


def recalibrate(path: Path, precision: str, dataset: Dataset) -> tuple[Inspector, Drift]:
    """The f32 model at `path` as an inspector for `precision`, its threshold drawn from scores of that precision.

    `dataset` brings OK images that the detector has not learnt from: its labelled test part, or all of it where it has
    none. Raises `OkngError` if there are no OK images among them, and for a threshold that was set by hand.
    """
    samples = [sample for sample in dataset.test if sample.label is not None] or dataset.train
    labels = np.array([NG if sample.label == NG else OK for sample in samples])
    good = labels == OK
    if not good.any():
        raise OkngError(f"{dataset.name} has no OK images to calibrate on; give a folder of new OK images")
    manifest, arrays, graph = read_onnx(path)
    if "products" in manifest:
        raise OkngError("a model of several products is exported at f32; for bf16 train a model for each product")
    if manifest["calibration"]["basis"] == "manual":
        raise OkngError(
            "the threshold was set by hand, and scores of another precision need one drawn anew; "
            "give the model a rate first: okng threshold MODEL --false-alarm-rate 0.05"
        )
    manifest.pop(WHOLE, None)  # of another precision
    if BY in manifest:
        manifest[BY] = "zones"
    scores, verdicts = {}, {}
    for kind in ("f32", precision):
        engine = make_engine(graph, "openvino", kind)
        inspector = Inspector.from_file(engine, {**manifest, "precision": kind}, arrays)
        scores[kind], peaks = inspector.scores_and_peaks([sample.image for sample in samples])
        rate = inspector.calibration.false_alarm_rate
        inspector = inspector.calibrated(
            Calibration.fit(scores[kind][good], None if peaks is None else peaks[good], "split", rate)
        )
        verdicts[kind] = scores[kind] > inspector.calibration.threshold
    moved = differences(scores[precision], scores["f32"], np.abs(scores["f32"]))
    return inspector, Drift(
        images=len(samples),
        ok=int(good.sum()),
        typical=float(np.median(moved)),
        worst=float(moved.max()),
        verdicts=int((verdicts["f32"] != verdicts[precision]).sum()),
        auroc={kind: auroc(labels, scores[kind]) for kind in scores} if not good.all() else None,
    )
