from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.contract.conftest import pictures
from torch import Tensor

import okng
from okng.detectors.base import Detector
from okng.detectors.catalogue import create
from okng.inspection.inspector import Inspector
from okng.inspection.reading.images import Preprocess
from okng.nn.features.backbones import Backbone
from okng.training.loop import frozen
from okng.training.loop.checkpoint import Checkpoint
from okng.training.loop.frozen import Engine, FrozenBackbones, compiled_backbones

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def stfpm() -> Detector:
    torch.manual_seed(0)
    return create("stfpm", weights="none")


def test_compiled_features_are_the_same_at_any_size(stfpm: Detector) -> None:
    """The graph was drawn at another size and another number of images."""
    teacher = stfpm.teacher
    for shape in ((2, 3, 64, 96), (5, 3, 32, 32)):
        images = torch.rand(shape)
        with torch.no_grad():
            expected = teacher(images)
            with compiled_backbones(stfpm):
                assert teacher.engine is not None
                found = teacher(images)
        assert teacher.engine is None
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))


def test_compiling_draws_no_numbers(stfpm: Detector) -> None:
    """Or a fit would depend on whether OpenVINO is installed."""
    before = torch.get_rng_state()
    with compiled_backbones(stfpm):
        assert torch.equal(torch.get_rng_state(), before)


def test_what_is_trained_is_not_compiled(stfpm: Detector) -> None:
    with compiled_backbones(stfpm):
        assert stfpm.student.engine is None


def test_a_failing_phase_leaves_torch_behind(stfpm: Detector) -> None:
    with pytest.raises(RuntimeError, match="on the way"), compiled_backbones(stfpm):
        raise RuntimeError("on the way")
    assert stfpm.teacher.engine is None
    copy.deepcopy(stfpm)


def test_a_compiled_backbone_hands_gradients_back_to_images(stfpm: Detector) -> None:
    """By PyTorch, for the compiled one has none; and without gradients any images will do."""
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    expected = torch.autograd.grad(stfpm.teacher(images)[0].sum(), images)[0]
    with compiled_backbones(stfpm):
        found = torch.autograd.grad(stfpm.teacher(images)[0].sum(), images)[0]
        with torch.no_grad():
            assert not stfpm.teacher(images)[0].requires_grad
    assert torch.equal(found, expected)


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of a backbone was given that is not compiled."""
    counts: list[int] = []
    plain = frozen.one_by_one

    def counting(*arguments: Any) -> Engine:
        engine = plain(*arguments)

        def features(images: Tensor) -> list[Tensor]:
            counts.append(len(images))
            return engine(images)

        return features

    monkeypatch.setattr(frozen, "one_by_one", counting)
    return counts


@pytest.mark.parametrize("images", [9, 10])
def test_a_backbone_is_compiled_where_that_pays_and_once(
    stfpm: Detector, images: int, passed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(frozen, "COMPILE_FROM", 10)
    monkeypatch.setattr(frozen, "compiled", lambda backbone: compiled.append(backbone) or (lambda x: backbone.net(x)))
    with FrozenBackbones() as backbones:
        for _ in range(2):
            with backbones.running(stfpm, images), torch.no_grad():
                stfpm.teacher(torch.rand(2, 3, 32, 32))
    assert (len(compiled), sum(passed)) == ((1, 0) if images == 10 else (0, 4))


@pytest.mark.parametrize(
    ("detector", "count", "holdout", "kill", "compiled"),
    [  # all images, or those learnt, pass first; after the kill it is the few held out, or their many views
        ("padim", 20, None, 1, True),
        ("padim", 11, 0.2, 1, True),
        ("efficientad", 8, 0.4, 1, False),
    ],
)
def test_killed_and_resumed_it_compiles_what_it_would_have(
    detector: str,
    count: int,
    holdout: float | None,
    kill: int,
    compiled: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once `kill` checkpoints are written: after what a fold learns, or in the middle of that."""
    calls: list[int] = []
    plain, save = frozen.one_by_one, Checkpoint.save

    def odd(backbone: Backbone) -> Engine:
        """Far enough from PyTorch that no score stays what it is if the wrong one passes an image."""
        engine = plain(backbone.net, backbone.mean, backbone.std)

        def features(images: Tensor) -> list[Tensor]:
            calls.append(len(images))
            return [2 * level for level in engine(images)]

        return features

    def fitted(**where: Any) -> Inspector:
        brief = {"width": 4, "descriptor": 8, "code": 4, "teacher_steps": 3, "training_steps": 2}
        arguments = {"size": 64, **brief} if detector == "efficientad" else {"size": 32, "dimensions": 9}
        few, settings = pictures(count, seed=1), {"weights": "none", "holdout": holdout, "device": "cpu"}
        return okng.fit(few, detector, **settings, **arguments, **where)

    saved: list[int] = []

    def killing(checkpoint: Checkpoint, *state: Any) -> None:
        save(checkpoint, *state)
        saved.append(len(saved))
        if len(saved) == kill:
            raise KeyboardInterrupt

    monkeypatch.setattr(frozen, "COMPILE_FROM", 9)
    monkeypatch.setattr(frozen, "compiled", odd)
    through = fitted()
    assert bool(calls) == compiled
    monkeypatch.setattr(Checkpoint, "save", killing)
    with pytest.raises(KeyboardInterrupt):
        fitted(checkpoint=tmp_path / "c")
    ended = fitted(checkpoint=tmp_path / "c", resume=True)
    np.testing.assert_array_equal(ended.calibration.scores, through.calibration.scores)
    learnt, expected = ended.engine.detector.state_dict(), through.engine.detector.state_dict()
    assert all(torch.equal(learnt[name], tensor) for name, tensor in expected.items())


def test_an_image_passes_a_backbone_once_and_each_by_itself(stfpm: Detector, passed: list[int]) -> None:
    images = torch.rand(6, 3, 32, 64)
    with torch.no_grad(), FrozenBackbones(remembered=5) as backbones:
        alone = [stfpm.teacher(image) for image in images[:4].split(1)]
        with backbones.running(stfpm, 5):
            first = stfpm.teacher(images[:3])
        fold = copy.deepcopy(stfpm)
        with backbones.running(fold, 5):
            found = fold.teacher(images[[3, 1, 0, 1]].to(memory_format=torch.channels_last))
            assert passed == [3, 1]
            fold.teacher(images)  # more than were to be remembered: all of them, and none is kept
            assert passed == [3, 1, 6]
    for level, parts in enumerate(zip(*alone, strict=True)):
        assert torch.equal(torch.cat(parts[:3]), first[level])
        assert torch.equal(torch.cat([parts[i] for i in (3, 1, 0, 1)]), found[level])


def test_what_moved_is_not_what_was_remembered(passed: list[int]) -> None:
    """An average of weights may be a backbone that no gradient trains."""
    detector, images = create("stfpm", weights="none"), torch.rand(1, 3, 32, 32)
    with torch.no_grad(), FrozenBackbones(remembered=1) as backbones:
        for _ in range(2):
            with backbones.running(detector, 1):
                found = detector.teacher(images)
            assert torch.equal(found[0], detector.teacher(images)[0])
            next(detector.teacher.parameters()).mul_(1.5)
    assert passed == [1, 1]


def test_a_fold_that_trains_its_backbone_later_changes_no_other(stfpm: Detector) -> None:
    fold, images = copy.deepcopy(stfpm), torch.rand(1, 3, 32, 32)
    learning = copy.deepcopy(stfpm)
    with torch.no_grad(), FrozenBackbones(remembered=2) as backbones:
        with backbones.running(learning, 1):
            pass
        next(learning.teacher.parameters()).mul_(1.5)
        with backbones.running(fold, 1):
            found = fold.teacher(images)
        assert torch.equal(found[0], fold.teacher(images)[0])


def test_one_colour_in_two_shapes_is_two_images(stfpm: Detector) -> None:
    with torch.no_grad(), FrozenBackbones(remembered=2) as backbones, backbones.running(stfpm, 1):
        wide, tall = stfpm.teacher(torch.zeros(1, 3, 32, 64)), stfpm.teacher(torch.zeros(1, 3, 64, 32))
    assert [f.shape[2:] for f in tall] == [f.shape[:1:-1] for f in wide]


@pytest.mark.parametrize("detector", ["patchcore", "simplenet"])
def test_a_cross_fit_reads_each_image_once_and_passes_it_once(
    detector: str, passed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that collects what is frozen, one that trains on it; six folds and all images, and each fold judges."""
    read, given = Preprocess.read, []

    def reading(preprocess: Preprocess, source: Any) -> Any:
        given.append(source)
        return read(preprocess, source)

    monkeypatch.setattr(Preprocess, "read", reading)
    arguments: dict[str, Any] = {"coreset": 0.1} if detector == "patchcore" else {"epochs": 1}
    okng.fit(pictures(6, seed=1), detector, weights="none", size=32, holdout=0, device="cpu", **arguments)
    assert (sum(passed), len(given)) == (6, 6)


def test_calibration_is_what_the_path_that_inspects_says() -> None:
    """Up to the rounding of a compiled backbone."""
    images = pictures(60, seed=1)
    inspector = okng.fit(images, "patchcore", weights="none", size=32, coreset=0.1, promise="strict", device="cpu")
    again = inspector.score_samples([images[i] for i in range(60)])
    nearest = abs(inspector.calibration.scores[:, None] - again).min(1)
    assert nearest.max() <= 1e-4 * again.max()
