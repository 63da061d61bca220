"""Rules: what a person knows of regions, by size, number and place, that a score does not.

A model file holds zones and rules in its manifest, and whatever opens it applies them. With zones the image's score is
the highest value of the map within them, for a detector's own score is of the whole image and can't be told from a
part of the map in general; the threshold is then drawn from the same of held-out OK images, see `zoned.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from okng.errors import OkngError
from okng.inspection.verdict.calibration import Calibration
from okng.inspection.verdict.regions import Region
from okng.inspection.verdict.zones import (
    SMALLEST,
    Zone,
    a_colour,
    a_name,
    a_number,
    inside,
    inspected,
    of_known_names,
    unique,
    within,
)

MANY = 100  # zones, and rules
LARGEST = 10 << 20  # bytes of a file of rules
BOUNDS = ("min_area", "max_area", "min_length", "max_length")
COUNTS = ("min_count", "max_count")
ANGLES = np.linspace(0, np.pi, 90, endpoint=False)
ACROSS = np.stack([np.cos(ANGLES), np.sin(ANGLES)])  # (2, 90)


@dataclass(frozen=True)
class Rule:
    """Says NG or OK of the regions that fit it, if there are as many as it asks for; bounds are inclusive.

    `min_area` and `max_area`: a region's area in px² of the original image, `min_length` and `max_length` its longest
    extent in px; `min_count` and `max_count`: how many such regions there have to be; `zone`: where. A region fits a
    zone for NG if any of it lies in there, for OK if all of it does: in doubt it is NG.
    """

    name: str
    verdict: str
    min_area: float | None = None
    max_area: float | None = None
    min_length: float | None = None
    max_length: float | None = None
    min_count: int = 1
    max_count: int | None = None
    zone: str | None = None
    colour: str = "#ff2d2d"

    def taken(self, regions: Sequence[tuple[int, Region]], zone: Zone | None, size: tuple[int, int]) -> list[int]:
        """The numbers of the `regions` of an image of `size` (height, width) that it speaks of; none if too few."""
        found = [number for number, region in regions if self._fits(region, zone, size)]
        enough = self.min_count <= len(found) <= (len(found) if self.max_count is None else self.max_count)
        return found if enough else []

    def _fits(self, region: Region, zone: Zone | None, size: tuple[int, int]) -> bool:
        if not _within(region.area, self.min_area, self.max_area):
            return False
        asked = self.min_length is not None or self.max_length is not None
        if asked and not _within(length(region), self.min_length, self.max_length):
            return False
        return zone is None or _lies_in(region, zone, size, wholly=self.verdict == "OK")

    def to_json(self) -> dict[str, Any]:
        """As JSON values, without what is not asked."""
        fields = {"name": self.name, "verdict": self.verdict, "colour": self.colour, "zone": self.zone}
        fields |= {name: getattr(self, name) for name in (*BOUNDS, *COUNTS)}
        return {name: value for name, value in fields.items() if value is not None}

    @classmethod
    def from_json(cls, fields: Any) -> Rule:
        """The inverse of `to_json`; `OkngError` in one line for what is no rule."""
        fields = of_known_names(fields, ("name", "verdict", "colour", "zone", *BOUNDS, *COUNTS), "a rule")
        name = a_name(fields.get("name"), "a rule")
        what = f"rule {name!r}"
        if fields.get("verdict") not in ("NG", "OK"):
            raise OkngError(f"the verdict of {what} is NG or OK, not {str(fields.get('verdict'))[:40]!r}")
        asked = [key for key in (*BOUNDS, *COUNTS) if fields.get(key) is not None]
        numbers = {key: a_number(fields[key], f"{key} of {what}") for key in asked}
        for key, value in numbers.items():
            if key in COUNTS and (value < 1 or value != int(value)):
                raise OkngError(f"{key} of {what} is a whole number from 1 on")
            if value < 0:
                raise OkngError(f"{key} of {what} is 0 or more")
        for part in ("area", "length", "count"):
            low, high = (numbers.get(f"{end}_{part}") for end in ("min", "max"))
            if low is not None and high is not None and low > high:
                raise OkngError(f"{what} fits nothing: min_{part} {low:g} is above max_{part} {high:g}")
        zone = None if fields.get("zone") is None else a_name(fields["zone"], f"the zone of {what}")
        colour = a_colour(fields.get("colour", "#ff2d2d" if fields["verdict"] == "NG" else "#2fbf4f"), what)
        given: dict[str, Any] = {key: int(value) if key in COUNTS else value for key, value in numbers.items()}
        return cls(name, fields["verdict"], zone=zone, colour=colour, **given)


@dataclass(frozen=True)
class Rules:
    """The `zones` and `rules` of a model; none of either for most."""

    zones: tuple[Zone, ...] = ()
    rules: tuple[Rule, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.zones or self.rules)

    @cached_property
    def masks(self) -> bool:
        """Whether a part of the image is not inspected, so that the score is the map's."""
        return any(zone.kind != "place" for zone in self.zones)

    @property
    def area(self) -> tuple[tuple[str, Any], ...]:
        """What decides which part is inspected, whatever it is called."""
        return tuple(sorted((zone.kind, zone.points) for zone in self.zones if zone.kind != "place"))

    def within(self, scores: np.ndarray) -> np.ndarray:
        """A map (h, w) with nothing to be seen outside of what is inspected, see `zones.within`."""
        return within(self.zones, scores) if self.masks else scores

    def judge(
        self, score: float, found: Sequence[Region], size: tuple[int, int], calibration: Calibration
    ) -> tuple[str, tuple[Region, ...], tuple[str, ...]]:
        """The verdict, the regions each with the rule that speaks of it, and why.

        Rules for NG see all regions, and one is enough. Of the others those that a rule for OK speaks of count for
        nothing: where that is true of all regions, the image is OK in spite of its score. Without any region only the
        score counts.
        """
        places = {zone.name: zone for zone in self.zones}
        by: dict[int, Rule] = {}
        reasons = []
        numbered = list(enumerate(found))
        for verdict in ("NG", "OK"):
            open_ = [(number, region) for number, region in numbered if number not in by]
            for rule in self.rules:
                if rule.verdict == verdict:
                    taken = rule.taken(open_, places.get(rule.zone or ""), size)
                    if taken:
                        by |= {number: rule for number in taken if number not in by}
                        reasons.append((verdict, f"{verdict} by rule {rule.name!r}: {_words(found, taken)}"))
        ng = [why for verdict, why in reasons if verdict == "NG"]
        told = tuple(replace(region, rule=by[i].name) if i in by else region for i, region in numbered)
        forgiven = bool(found) and len(by) == len(found)
        odd = calibration.is_ng(score)
        if odd and not forgiven:
            ng.append(f"score {score:.4g} above the threshold {calibration.threshold:.4g}")
        if ng:
            return "NG", told, tuple(ng)
        return "OK", told, tuple(why for _, why in reasons) if odd else ()

    def promise(self, calibration: Calibration, whole_maps: bool) -> str:
        """What zones and rules add to the promise, from the next clause on.

        `whole_maps`: the calibration is of whole maps, whose maxima are no less than those of a part. Where the score
        is the map's, each region is above the threshold already; else at most the asked share of OK images shows one.
        """
        said = "; counted on whole maps, so within the zones fewer" if whole_maps else ""
        if any(rule.verdict == "NG" for rule in self.rules):
            above = self.masks and (calibration.pixel_threshold or 0) >= calibration.threshold
            most = (
                " as many again at most" if calibration.basis == "conformal" and calibration.method == "split" else ""
            )
            said += "" if above else f"; rules that say NG can add{most or ' to it'}"
        return said

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"zones": [zone.to_json() for zone in self.zones], "rules": [rule.to_json() for rule in self.rules]}

    @classmethod
    def of(cls, given: Rules | dict[str, Any] | str | Path | None) -> Rules:
        """What a person gave: rules, their JSON, or a file of it."""
        if isinstance(given, str | Path):
            return cls.from_json(_read(Path(given).expanduser()))
        return given if isinstance(given, Rules) else cls.from_json(given)

    @classmethod
    def from_json(cls, fields: Any) -> Rules:
        """The inverse of `to_json`; `OkngError` in one line for what makes no sense."""
        fields = of_known_names({} if fields is None else fields, ("zones", "rules"), "a file of rules")
        made: dict[str, Any] = {}
        for key, kind in (("zones", Zone), ("rules", Rule)):
            listed = fields.get(key, [])
            if not isinstance(listed, list | tuple) or len(listed) > MANY:
                raise OkngError(f"{key} is a list of at most {MANY}")
            made[key] = tuple(kind.from_json(each) for each in listed)  # type: ignore[attr-defined]
            unique([each.name for each in made[key]], key)
        rules = cls(**made)
        known = {zone.name for zone in rules.zones}
        for rule in rules.rules:
            if rule.zone is not None and rule.zone not in known:
                raise OkngError(f"rule {rule.name!r} is for the zone {rule.zone!r}, which there is not")
        if rules.masks and inspected(rules.zones, (512, 512)).mean() < SMALLEST:
            raise OkngError("the zones leave nothing of the image to inspect; make them larger, or ignore less")
        return rules


def length(region: Region) -> float:
    """The longest extent of a region in px: the largest width of its contour over directions two degrees apart."""
    along = np.array(region.contour) @ ACROSS  # (n, 90)
    return float(np.ptp(along, axis=0).max())


def _within(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _lies_in(region: Region, zone: Zone, size: tuple[int, int], wholly: bool) -> bool:
    """Whether all of a region lies in a zone, or any of it."""
    sides = np.array([size[1], size[0]], np.float64)
    contour = np.array([*region.contour, region.peak]) / sides  # (n, 2)
    held = zone.holds(contour)
    if wholly:
        return bool(held.all())
    return bool(held.any() or inside(contour[:-1], np.array(zone.points)).any())


def _words(found: Sequence[Region], taken: Sequence[int]) -> str:
    """The largest of the regions that a rule speaks of, and how many more."""
    region = max((found[number] for number in taken), key=lambda each: each.area)
    x, y = region.peak
    more = f", and {len(taken) - 1} more" if len(taken) > 1 else ""
    return f"region of {region.area:.0f} px, {length(region):.0f} px long, at {x:.0f}, {y:.0f}{more}"


def _read(path: Path) -> Any:
    try:
        if path.stat().st_size > LARGEST:
            raise OkngError(f"{path} is too large for a file of rules; give the one that `okng rules --json` prints")
        return json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise OkngError(f"{path} can't be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise OkngError(f"{path} is no JSON: {str(error).splitlines()[0]}") from error
