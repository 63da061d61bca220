from __future__ import annotations

import copy

import pytest
import torch

from okng.detectors.base import Detector
from okng.detectors.catalogue import create
from okng.training.frozen import compiled_backbones

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
