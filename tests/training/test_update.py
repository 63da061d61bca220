"""An update is a fit on all images, without the old ones."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.contract.conftest import pictures
from tests.training.images.test_copies import again, scenes

import okng
from okng.cli.train import train
from okng.detectors.base import Detector
from okng.detectors.catalogue import create
from okng.detectors.engine import TorchEngine
from okng.errors import OkngError
from okng.inspection.verdict.calibration import Calibration
from okng.nn.vectors.coreset import covering_radius
from okng.training.progress import Narrator

QUICK = {"size": 64, "device": "cpu", "holdout": 0.4}
SMALL = {"patchcore": {"coreset": 0.1}, "padim": {"dimensions": 20}}


def detector_of(inspector: okng.Inspector) -> Detector:
    assert isinstance(inspector.engine, TorchEngine)
    return inspector.engine.detector


def fitted(name: str, images: np.ndarray, **settings: object) -> okng.Inspector:
    return okng.fit(images, name, **{**QUICK, **SMALL.get(name, {}), **settings})


@pytest.fixture(scope="module")
def patchcore() -> okng.Inspector:
    return fitted("patchcore", pictures(24, seed=1), false_alarm_rate=0.1)


def learnt(name: str, *parts: np.ndarray) -> Detector:
    """The detector after a fit on the first of `parts` and an update with each other one, nothing held out."""
    from okng.inspection.reading.images import Preprocess
    from okng.training.images.data import TrainingImages
    from okng.training.loop.phases import run_phases

    torch.manual_seed(0)
    detector = create(name, **SMALL[name])
    for i, part in enumerate(parts):
        run_phases(detector, TrainingImages(list(part), Preprocess("RGB", (64, 64), 16)), device="cpu", update=i > 0)
    return detector


def batch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255  # (B, 3, H, W)


def test_padim_updated_is_padim_fitted_on_all() -> None:
    images = pictures(40, seed=1)
    whole, updated = learnt("padim", images), learnt("padim", images[:15], images[15:16], images[16:])
    assert int(updated.count) == 40
    torch.testing.assert_close(updated.mean, whole.mean, rtol=1e-4, atol=1e-5)
    factors = [torch.linalg.inv(d.whitening.double()) for d in (updated, whole)]
    covariances = [factor @ factor.mT for factor in factors]  # (P, d, d)
    assert float((covariances[0] - covariances[1]).norm() / covariances[1].norm()) < 1e-4
    with torch.no_grad():
        new = batch(pictures(4, seed=7, defect=True))
        torch.testing.assert_close(updated(new).map, whole(new).map, rtol=1e-3, atol=1e-3)


def test_patchcore_updated_covers_all_patches_nearly_as_a_fit_on_all() -> None:
    images = pictures(24, seed=1)
    whole, updated = learnt("patchcore", images), learnt("patchcore", images[:12], images[12:13], images[13:])
    assert int(updated.seen) == int(whole.seen) and len(whole.bank) <= len(updated.bank) < 1.2 * len(whole.bank)
    with torch.no_grad():
        patches = updated.patches(batch(images)).flatten(0, 2)
        radii = [covering_radius(patches, d.bank + d.centre) for d in (updated, whole)]
        assert radii[0] <= 1.2 * radii[1]
        new = batch(np.concatenate([pictures(8, seed=7), pictures(8, seed=8, defect=True)]))
        torch.testing.assert_close(updated(new).image, whole(new).image, rtol=0.15, atol=0)


@pytest.mark.parametrize("name", ["patchcore", "padim"])
def test_a_false_alarm_is_learnt_from_itself_alone(name: str, tmp_path: Path) -> None:
    before = fitted(name, pictures(24, seed=1), false_alarm_rate=0.1)
    alarm = pictures(1, seed=9, defect=True)[0]
    assert next(before.inspect(alarm)).verdict == "NG"
    before.save(tmp_path / "parts.okng")
    after = okng.update(tmp_path / "parts.okng", alarm, device="cpu")
    found = next(after.inspect(alarm))
    assert found.verdict == "OK" and not found.regions
    assert after.calibration.threshold == before.calibration.threshold
    assert after.calibration.method == "updated" and "not promised" in after.calibration.promise()
    odd = pictures(2, seed=8)
    odd[:, 40:56, 30:50] = [250, 10, 10]  # what was learnt is this defect, not every one
    assert {i.verdict for i in after.inspect(odd)} == {"NG"}


def test_with_a_share_as_coreset_no_distance_rises(patchcore: okng.Inspector) -> None:
    """A weighted score may, for the weight looks at the memory; by an eighth at most."""
    images, before, sizes = pictures(8, seed=7), patchcore, []
    for seed in range(9, 14):  # false alarms, one after another
        after = okng.update(before, pictures(1, seed, defect=True), device="cpu")
        (scores, maps), (old_scores, old_maps) = after.engine(images), before.engine(images)
        assert maps is not None and old_maps is not None and (maps <= old_maps * (1 + 1e-4)).all()
        assert (scores <= old_scores * 9 / 8 * (1 + 1e-4)).all()
        sizes.append(len(detector_of(after).bank))
        before = after
    assert sizes[-1] - sizes[0] < 5 * 64 * 0.4  # and the memory does not take in all of them


def test_the_old_inspector_stays_and_the_file_remembers(patchcore: okng.Inspector, tmp_path: Path) -> None:
    memories = len(detector_of(patchcore).bank)
    once = okng.update(patchcore, pictures(5, seed=5), device="cpu", holdout=0.4, false_alarm_rate=0.2)
    twice = okng.update(once, pictures(1, seed=6), device="cpu")
    assert len(detector_of(patchcore).bank) == memories and "updates" not in patchcore.manifest["provenance"]
    twice.save(tmp_path / "parts.okng")
    loaded = okng.load(tmp_path / "parts.okng")
    provenance = loaded.manifest["provenance"]
    assert [provenance[key] for key in ("images", "learnt_from", "held_out")] == [30, 18, 12]
    assert [(u["images"], u["learnt_from"], u["held_out"]) for u in provenance["updates"]] == [(5, 3, 2), (1, 1, 0)]
    assert len(loaded.calibration.scores) == 12 and loaded.calibration.false_alarm_rate == 0.2
    assert np.array_equal(loaded.score_samples(pictures(2, seed=7)), twice.score_samples(pictures(2, seed=7)))


def test_new_scores_replace_the_old_ones_as_soon_as_they_suffice() -> None:
    old = Calibration.fit(np.arange(30.0), np.arange(30.0), "split", 0.1)
    few, enough = np.arange(8.0), np.arange(9.0)
    assert (old.updated(few, few).method, len(old.updated(few, few).scores)) == ("updated", 38)
    renewed = old.updated(enough, enough)
    assert (renewed.method, renewed.basis, renewed.threshold, renewed.pixel_threshold) == ("split", "conformal", 8, 8)
    by_hand = old.with_threshold(100.0).updated(enough, enough)
    assert (by_hand.basis, by_hand.threshold) == ("manual", 100)


def test_of_a_burst_held_out_from_an_update_one_image_calibrates_and_a_stray_is_said(
    patchcore: okng.Inspector,
) -> None:
    rng = np.random.default_rng(0)
    stray = np.kron(rng.integers(0, 2, (8, 8)), np.full((8, 8), 255)).astype(np.uint8)[..., None]
    frames = [again(image, "noise", rng)[..., 0] for image in (*scenes(9, side=64), stray) for _ in range(3)]
    told: list[str] = []
    tell = Narrator(quiet=True)
    tell.say = told.append  # type: ignore[method-assign]
    after = okng.update(patchcore, frames, holdout=0.9, false_alarm_rate=0.2, seed=1, device="cpu", tell=tell)
    done = after.manifest["provenance"]["updates"][-1]
    assert (done["images"], done["learnt_from"], done["held_out"]) == (30, 3, 27)
    assert (after.calibration.method, len(after.calibration.scores)) == ("split", 9)
    assert after.calibration.unit == "image"
    lots = [f"lot {i // 6}" for i in range(30)]
    assert len(after.manifest["calibrating"]) == 9 < len(after.manifest["unlearnt"])  # one of each burst
    by_lot = okng.update(patchcore, frames, group_by=lots, holdout=0.8, false_alarm_rate=0.2, device="cpu")
    assert (len(by_lot.calibration.scores), by_lot.calibration.unit) == (4, "group")
    assert any("update the old model again" in line for line in told)
    assert not any("--drop-outliers" in line for line in told)  # an update has no such option


def test_what_is_learnt_already_counts_once(patchcore: okng.Inspector) -> None:
    old, new = pictures(24, seed=1), pictures(3, seed=5)
    order = np.random.default_rng(0).permutation(24)
    learnt, held_out = old[order[10:]], old[order[:10]]
    assert len(patchcore.manifest["unlearnt"]) == 10
    with pytest.raises(OkngError, match="learnt all of these images already"):
        okng.update(patchcore, learnt, device="cpu")
    after = okng.update(patchcore, np.concatenate([learnt[:4], new, new[:2]]), device="cpu")
    assert after.manifest["provenance"]["updates"][-1]["learnt_from"] == 3
    assert after.manifest["provenance"]["updates"][-1]["copies"] == 6
    assert int(detector_of(after).seen) == int(detector_of(patchcore).seen) + 3 * 64
    again = okng.update(after, held_out[:1], device="cpu")  # a false alarm may be one of those held out
    assert again.manifest["provenance"]["updates"][-1]["learnt_from"] == 1
    assert len(again.manifest["unlearnt"]) == 9 and len(again.manifest["seen"]) == 27
    assert again.manifest["calibrating"] == again.manifest["unlearnt"]  # the old scores still set the threshold
    zone = {"name": "z", "kind": "inspect", "points": [[0, 0], [1, 0], [1, 0.5], [0, 0.5]]}
    zoned = patchcore.with_rules({"zones": [zone]}, new)  # nor are those learnt that set the threshold later
    third = okng.update(zoned, new[:1], device="cpu")
    assert third.manifest["provenance"]["updates"][-1]["learnt_from"] == 1
    assert len(third.manifest["unlearnt"]) == 12 and len(third.manifest["seen"]) == 27


def test_mistakes(patchcore: okng.Inspector, tmp_path: Path) -> None:
    parts = pictures(6, seed=1)
    other = okng.fit(parts, "autoencoder", epochs=1, code=4, width=8, **QUICK)
    with pytest.raises(
        OkngError, match=r"autoencoder can't be updated, .*padim, patch_memory, patchcore, .*spade.* can; fit it again"
    ):
        okng.update(other, parts)
    with pytest.raises(OkngError, match="holdout"):
        okng.update(patchcore, parts, holdout=1)
    with pytest.raises(OkngError, match="no readable image"):
        (tmp_path / "bad.png").write_bytes(b"")
        okng.update(patchcore, tmp_path / "bad.png")


def test_the_command(patchcore: okng.Inspector, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patchcore.save(tmp_path / "parts.okng")
    alarm = pictures(1, seed=9, defect=True)[0]
    Image.fromarray(alarm).save(tmp_path / "alarm.png")
    train(str(tmp_path / "alarm.png"), update=tmp_path / "parts.okng", output=tmp_path / "new.okng", device="cpu")
    assert "learnt from 1 of 1 images" in capsys.readouterr().err
    assert next(okng.load(tmp_path / "parts.okng").inspect(alarm)).verdict == "NG"
    train(str(tmp_path / "alarm.png"), update=tmp_path / "parts.okng", device="cpu")  # in place
    assert next(okng.load(tmp_path / "parts.okng").inspect(alarm)).verdict == "OK"
    with pytest.raises(OkngError, match="leave out -d"):
        train(str(tmp_path / "alarm.png"), update=tmp_path / "parts.okng", parameter=["coreset=0.1"])


@pytest.mark.slow  # the same on drawn images is in the suite
@pytest.mark.real_data
@pytest.mark.parametrize("name", ["patchcore", "padim"])
def test_in_two_halves_transistors_are_judged_as_by_a_fit_on_all(okng_data: Path, name: str) -> None:
    from scipy.stats import spearmanr

    from okng.metrics.ranking import auroc

    folder = okng_data / "mvtec_ad/transistor"
    good = sorted((folder / "train/good").glob("*.png"))[:80]
    test = sorted((folder / "test").glob("*/*.png"))[::3]
    ng = np.array([path.parent.name != "good" for path in test])
    settings = {"size": 128, "device": "cpu", "holdout": 0.2, **SMALL[name]}
    whole = okng.fit(good, name, **settings).score_samples(test)
    updated = okng.update(okng.fit(good[:40], name, **settings), good[40:], device="cpu", holdout=0.2)
    scores = updated.score_samples(test)
    assert abs(auroc(ng, scores) - auroc(ng, whole)) < 0.03
    assert spearmanr(scores, whole).statistic > 0.9


def test_an_update_widens_what_images_are_like(patchcore: okng.Inspector) -> None:
    height, width = patchcore.manifest["learnt_images"]["height"][0], patchcore.manifest["learnt_images"]["width"][0]
    updated = okng.update(patchcore, pictures(2, seed=8).repeat(2, 1).repeat(2, 2), device="cpu")
    assert updated.manifest["learnt_images"]["height"] == [height, 2 * height]
    assert updated.manifest["learnt_images"]["width"] == [width, 2 * width]
    old = copy.copy(patchcore)
    old.manifest = {key: value for key, value in patchcore.manifest.items() if key != "learnt_images"}
    assert "learnt_images" not in okng.update(old, pictures(2, seed=8), device="cpu").manifest
