"""The promise of a threshold in words a person at a line understands, in each language of the pages."""

from __future__ import annotations

from okng.inspection.inspector import Inspector
from okng.inspection.verdict.calibration import Calibration
from okng.inspection.verdict.zoned import BY
from okng.report.language import Translate
from okng.report.settings import asked


def promise(inspector: Inspector, t: Translate) -> str:
    """What `Inspector.promise` says, shorter: no more and no less is promised."""
    calibration, rules = inspector.calibration, inspector.rules
    said = [_of_threshold(calibration, t)]
    if calibration.dropped:
        said.append(t("promise.dropped", n=calibration.dropped))
    if rules.masks and inspector.manifest.get(BY) == "whole maps":
        said.append(t("promise.whole_maps"))
    above = rules.masks and (calibration.pixel_threshold or 0) >= calibration.threshold
    if any(rule.verdict == "NG" for rule in rules.rules) and not above:
        guaranteed = calibration.basis == "conformal" and calibration.method == "split"
        said.append(t("promise.rules_split" if guaranteed else "promise.rules"))
    return " ".join(said)


def _of_threshold(calibration: Calibration, t: Translate) -> str:
    figures = {
        "rate": asked(calibration.false_alarm_rate),
        "n": len(calibration.scores),
        "least": f"{100 * calibration.smallest_rate:.2g}%",
    }
    if calibration.basis == "manual":
        return t("promise.manual", **figures)
    if calibration.basis == "conformal" and calibration.method == "split":
        key = "promise.split_groups" if calibration.unit == "group" else "promise.split"
        return t(key, reach=f"{100 * calibration.may_reach:.2g}%", **figures)
    if calibration.basis == "conformal":
        return t("promise.updated" if calibration.method == "updated" else "promise.folds", **figures)
    return t("promise.tail" if calibration.basis == "tail" else "promise.largest", **figures)
