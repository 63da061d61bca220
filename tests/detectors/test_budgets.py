"""Budgets: every detector has the paper's, which can be constructed and run for a step of each phase."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from okng.detectors import budgets
from okng.detectors.base import Detector, Phase, Train
from okng.detectors.budgets import BUDGETS, LARGE, LEFT_OUT, PAPER, SMALL, arguments_for
from okng.detectors.catalogue import CATALOGUE, create, parameters
from okng.errors import OkngError
from okng.training.data import TrainingImages
from okng.training.input import build
from okng.training.phases import run_phases

OTHERS = {"vgg11_classifier"}  # of the tables, no detector


def photographs(count: int, side: int = 320) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (side, side, 3), dtype=np.uint8) for _ in range(count)]


def one_step_each(detector: Detector) -> Iterator[Phase]:
    """The detector's phases, training cut to one batch, and not more of it than two images."""
    for phase in type(detector).phases(detector):
        yield replace(phase, steps=1, batch_size=2) if isinstance(phase, Train) else phase


def test_every_detector_has_a_paper_budget() -> None:
    assert set(PAPER) == {*CATALOGUE, *OTHERS} and set(LEFT_OUT) <= set(CATALOGUE)
    assert set(SMALL) <= {*CATALOGUE, *OTHERS} and set(LARGE) <= set(CATALOGUE)


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_a_paper_budget_is_constructed_and_takes_a_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the paper's size, of photographs of another one: it is not the images' own size that decides."""
    arguments = dict(arguments_for("paper", name, small=False) or {})
    size = arguments.pop("size", None)
    if name == "padim":
        size = (32, 32)  # of 224 px it keeps 3.8 GB, 550² numbers for each of 56² places
    if "weights" in parameters(name):
        arguments["weights"] = "none"  # which are not on this machine; the network is the paper's
    images = photographs(3) if size is not None else photographs(3, side=32)
    torch.manual_seed(0)
    detector, preprocess, _ = build(name, images, size, arguments)
    assert size is None or preprocess.shape(320, 320) == size
    labels = [0, 0, int(detector.needs_ng)]
    monkeypatch.setattr(detector, "phases", lambda: one_step_each(detector))
    run_phases(detector, TrainingImages(images, preprocess, labels=labels), device="cpu")
    assert all(tensor.isfinite().all() for tensor in detector.state_dict().values())


@pytest.mark.parametrize(("name", "steps"), [("aesc", 31_250), ("f_anogan", 159_375), ("ssim_autoencoder", 15_625)])
def test_the_paper_counts_steps_whatever_the_number_of_images(name: str, steps: int) -> None:
    arguments = {key: value for key, value in PAPER[name].items() if key != "size"}
    small = {"image_size": (32, 32), "width": 2}
    trains = [phase for phase in create(name, **{**arguments, **small}).phases() if isinstance(phase, Train)]
    assert sum(phase.steps or 0 for phase in trains) == steps


@pytest.mark.parametrize("small", [True, False])
def test_the_cpu_budget_names_arguments_that_there_are(small: bool) -> None:
    for name, given in (SMALL if small else LARGE).items():
        if name in CATALOGUE:
            assert {*given} <= {*parameters(name), "size"}, name


def test_a_budget_that_there_is_not() -> None:
    assert [arguments_for(budget, "gan", small=True) is None for budget in BUDGETS] == [False, False]
    with pytest.raises(OkngError, match="a budget is cpu or paper, not 'gpu'"):
        budgets.arguments_for("gpu", "gan", small=True)
