"""What becomes of a model's threshold when its zones change: the score does, so the calibration has to.

A calibration belongs to one score. A detector's own score is of the whole image, and that of a part can't be told from
it: the mean over a map, or PatchCore's weight of the oddest patch, know nothing of zones. With zones the score is
therefore the highest value of the map within them, for images to judge and for those that calibrate alike.

Where the OK images are at hand (`ok`) that are held out, they are scored so: a split, with its promise. Where they are
not, the file has the highest values of their whole maps, for the regions. None is below the highest value within the
zones, of the same image: a threshold that at most 5 % of the former exceed, at most 5 % of the latter do. So the
promise holds, and p-values are too large rather than too small. It costs: what a place that is ignored now did to the
threshold stays.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from okng.errors import OkngError
from okng.inspection.verdict.calibration import Calibration
from okng.inspection.verdict.learnt import CALIBRATING, calibrating, not_learnt, warn_apart
from okng.inspection.verdict.rules import Rules

if TYPE_CHECKING:
    from okng.inspection.inspector import Images, Inspector

WHOLE = "whole_image"  # of the manifest: the calibration without zones
BY = "zones_calibrated"  # by "whole maps" or by "zones"


def ruled(inspector: Inspector, rules: Rules, ok: Images | None) -> Inspector:
    """`inspector` with `rules`, calibrated on `ok` if given: see `Inspector.with_rules`."""
    from okng.inspection.inspector import each_image

    if inspector.products:
        raise OkngError(
            "zones and rules of a model of several products are given when it is trained: "
            "okng train NAME=FOLDER NAME=FOLDER --rules FILE"
        )
    present, manifest = inspector.calibration, dict(inspector.manifest)
    if rules and present.pixel_threshold is None:
        raise OkngError("this detector does not say where; zones and rules need one that does, see: okng list")
    manifest["rules"] = rules.to_json()
    if rules.area == inspector.rules.area and ok is None:
        return inspector.calibrated(present, manifest)
    if present.basis == "manual":
        raise OkngError(
            "the threshold was set by hand, for another score; "
            "give the model a rate first: okng threshold MODEL --false-alarm-rate 0.05"
        )
    before, by = _whole(inspector)
    for key in (WHOLE, BY):
        manifest.pop(key, None)
    if rules.masks and before is not None:
        manifest[WHOLE] = _to_json(before) | {CALIBRATING: by}
    if ok is not None:
        if present.unit == "group":
            raise OkngError(
                "this model's promise is about groups, of which images say nothing; "
                "give zones when training: okng train --zones FILE --group-by PATTERN"
            )
        manifest[BY] = "zones"
        new, manifest = not_learnt(manifest, each_image(ok))
        unjudged = replace(present, threshold=np.inf, pixel_threshold=np.inf)
        scores, peaks = inspector.calibrated(unjudged, manifest).scores_and_peaks(new)
        warn_apart(scores, new)
        calibration = Calibration.fit(scores, peaks, "split", present.false_alarm_rate)
    elif before is None:
        raise OkngError("this model was calibrated within its zones alone; give OK images to calibrate by: --ok IMAGES")
    elif rules.masks and before.peaks is not None:
        manifest |= {BY: "whole maps", CALIBRATING: by}
        calibration = Calibration.fit(
            before.peaks, before.peaks, before.method, present.false_alarm_rate, before.unit, before.dropped
        )
    else:
        manifest[CALIBRATING] = by
        calibration = before.at(present.false_alarm_rate)
    return inspector.calibrated(calibration, manifest)


def _whole(inspector: Inspector) -> tuple[Calibration | None, list[str]]:
    """The calibration without zones, None where it was never made, and which images it is by."""
    if not inspector.rules.masks:
        return inspector.calibration, [*calibrating(inspector.manifest)]
    fields = inspector.manifest.get(WHOLE)
    if not isinstance(fields, dict):
        return None, []
    try:
        scores, peaks = (np.array(fields[key], np.float64) for key in ("scores", "peaks"))
    except (KeyError, TypeError, ValueError) as error:
        raise OkngError("the model file's calibration makes no sense; fit the model again") from error
    by = fields.get(CALIBRATING, inspector.manifest.get("unlearnt", ()))
    return Calibration.from_json(fields, scores, peaks), [*by]


def _to_json(calibration: Calibration) -> dict[str, Any]:
    assert calibration.peaks is not None
    arrays = {"scores": calibration.scores.tolist(), "peaks": calibration.peaks.tolist()}
    return {**calibration.to_json(), **arrays}
