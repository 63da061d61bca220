"""A faster precision for an exported detector, calibrated at that precision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from okng.datasets import NG, OK, Dataset
from okng.errors import OkngError
from okng.exporting.onnx import differences
from okng.inspection.engines import make_engine
from okng.inspection.inspector import Inspector, each_image
from okng.inspection.onnx_file import read_onnx
from okng.inspection.verdict.calibration import Calibration
from okng.inspection.verdict.learnt import not_learnt, warn_apart
from okng.inspection.verdict.zoned import BY, WHOLE
from okng.metrics import auroc


@dataclass(frozen=True)
class Drift:
    """What a lower precision does to `images` images, `ok` of them the OK ones it was calibrated on.

    `typical` (median) and `worst` are changes of the score, relative to the largest absolute score of the OK images, or
    to an NG image's own where that is larger: a signed score may be near 0 for one of them. `verdicts` is how many
    verdicts differ when both precisions are calibrated on the same OK images. `auroc` is by precision, None without NG
    images.
    """

    images: int
    ok: int
    typical: float
    worst: float
    verdicts: int
    auroc: dict[str, float] | None


def recalibrate(path: Path, precision: str, dataset: Dataset) -> tuple[Inspector, Drift]:
    """The f32 model at `path` as an inspector for `precision`, its threshold drawn from scores of that precision.

    `dataset` brings OK images: its labelled test part, or all of it where it has none. Those that the detector has
    learnt are left out. Raises `OkngError` if there are no others, for a threshold that was set by hand, and for a
    promise about groups.
    """
    samples = [sample for sample in dataset.test if sample.label is not None] or dataset.train
    ok, ng = (
        list(each_image([sample.image for sample in samples if (sample.label == NG) == odd])) for odd in (False, True)
    )
    if not ok:
        raise OkngError(f"{dataset.name} has no OK images to calibrate on; give a folder of new OK images")
    manifest, arrays, graph = read_onnx(path)
    if "products" in manifest:
        raise OkngError("a model of several products is exported at f32; for bf16 train a model for each product")
    if manifest["calibration"]["basis"] == "manual":
        raise OkngError(
            "the threshold was set by hand, and scores of another precision need one drawn anew; "
            "give the model a rate first: okng threshold MODEL --false-alarm-rate 0.05"
        )
    if manifest["calibration"]["unit"] == "group":
        raise OkngError("this model's promise is about groups, of which images say nothing; export it at f32")
    new, manifest = not_learnt(manifest, ok)
    labels = np.repeat([OK, NG], [len(new), len(ng)])
    good = labels == OK
    manifest.pop(WHOLE, None)  # of another precision
    if BY in manifest:
        manifest[BY] = "zones"
    scores, verdicts = {}, {}
    for kind in ("f32", precision):
        engine = make_engine(graph, "openvino", kind)
        inspector = Inspector.from_file(engine, {**manifest, "precision": kind}, arrays)
        scores[kind], peaks = inspector.scores_and_peaks([*new, *ng])
        rate = inspector.calibration.false_alarm_rate
        inspector = inspector.calibrated(
            Calibration.fit(scores[kind][good], None if peaks is None else peaks[good], "split", rate)
        )
        verdicts[kind] = scores[kind] > inspector.calibration.threshold
    warn_apart(scores[precision][good], new)
    size = np.abs(scores["f32"])
    moved = differences(scores[precision], scores["f32"], size.clip(size[good].max()))
    return inspector, Drift(
        images=len(labels),
        ok=len(new),
        typical=float(np.median(moved)),
        worst=float(moved.max()),
        verdicts=int((verdicts["f32"] != verdicts[precision]).sum()),
        auroc={kind: auroc(labels, scores[kind]) for kind in scores} if ng else None,
    )
