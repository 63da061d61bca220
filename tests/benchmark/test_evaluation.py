from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.contract.conftest import pictures

import okng
from okng.benchmark import evaluation
from okng.datasets import NG, OK, Dataset, Sample
from okng.errors import OkngError
from okng.inspection.verdict.result import Inspection


def figures_of(count: int, folder: Path) -> tuple[float, float, str]:
    rng = np.random.default_rng(0)
    pixels = evaluation._Pixels()
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4, 3:6] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    for i in range(count):
        heat = rng.random((8, 8)).astype(np.float32)
        if i % 2:
            heat += mask / 510
        sample = Sample(mask, NG if i % 2 else OK, mask=folder / "mask.png" if i % 2 else None)
        pixels.add(sample, Inspection(i, None, 1.0, 1.0, "", (8, 8), heat, (), {}))
    return pixels.compute()


def test_many_pixels_are_counted_and_how_exactly_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    *exact, note = figures_of(6, tmp_path)
    assert note == ""
    monkeypatch.setattr(evaluation, "EXACT_PIXELS", 4 * 64)
    *counted, note = figures_of(6, tmp_path)
    assert counted == pytest.approx(exact, abs=1e-3)
    assert note.startswith("of 384 pixels, counted in bins: exact to ") and 0 < float(note.split()[-1]) < 0.1


@pytest.mark.parametrize(
    ("marked", "said"), [(0, "undefined: no mask marks anything"), (255, "undefined: the masks leave no pixel normal")]
)
def test_masks_that_tell_no_pixels_apart_are_told_of(tmp_path: Path, marked: int, said: str) -> None:
    Image.new("L", (8, 8), marked).save(tmp_path / "mask.png")
    pixels = evaluation._Pixels()
    heat = np.arange(64, dtype=np.float32).reshape(8, 8)
    sample = Sample(np.zeros((8, 8), np.uint8), NG, mask=tmp_path / "mask.png")
    pixels.add(sample, Inspection(0, None, 1.0, 1.0, "", (8, 8), heat, (), {}))
    *figures, note = pixels.compute()
    assert np.isnan(figures).all() and note == said


def test_test_images_of_which_none_can_be_read_are_not_called_ng(tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"torn")
    inspector = okng.fit(pictures(8, 1), "knn", size=32, holdout=0.5, device="cpu")
    samples = tuple(Sample(tmp_path / "torn.png", label) for label in (OK, NG))
    figures = okng.evaluate(inspector, Dataset("torn", "", "", (), samples))
    assert figures["n_ok"] == figures["n_ng"] == 0 and len(figures["skipped"]) == 2
    assert set(figures["notes"].values()) == {"undefined: none of the test images could be read"}


def test_what_a_sample_can_not_hold_is_told_of_and_not_left_out() -> None:
    """A Pillow image was left out of the figures without a word, and the other images measured alone."""
    pixels = np.zeros((8, 8), np.uint8)
    with pytest.raises(OkngError, match=r"not Image; give numpy\.asarray\(image\)"):
        Sample(Image.fromarray(pixels), OK)  # type: ignore[arg-type]
    for mask in ("mask.png", pixels, ("mask.png",)):
        with pytest.raises(OkngError, match="mask is the Path of an image"):
            Sample(pixels, NG, mask=mask)  # type: ignore[arg-type]
