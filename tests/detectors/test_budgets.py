"""Budgets: every detector's paper budget can be constructed and run for a step of each phase."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from okng.detectors.base import Detector, Phase, Train
from okng.detectors.budgets import BUDGETS, arguments_for
from okng.detectors.cards import cards
from okng.detectors.catalogue import create, parameters
from okng.errors import OkngError
from okng.training.images.data import TrainingImages
from okng.training.images.input import build
from okng.training.loop.phases import run_phases

SMALLER = 128  # px, which the deepest networks and the coarsest of three scales still take
NARROWER: dict[str, dict[str, int]] = {  # where a budget has the defaults, with which the contract takes a step
    "cfa": {"reduce": 32},
    "cflow": {"blocks": 2},
    "csflow": {"hidden": 64},  # of 1024 it keeps 8 GB
    "dinomaly": {"depth": 2},
    "dsr": {"width": 32, "code": 32},
    "fastflow": {"flow_steps": 2},
    "glass": {"steps": 1, "hidden": 32},
    "inp_former": {"depth": 2},
    "rkde": {"proposals": 50},
    "salad": {"composition_width": 8},
    "uflow": {"flow_steps": 1},
}
SIDES = {
    "padim": 32,  # of 128 px it keeps 550² numbers for each of 32² places
    "uninformed_students": 72,  # more than its largest field: all networks look at each pixel
}
SIZES = {
    "dsr": (64, 64),
    "efficientad": (64, 64),
    "salad": (64, 64),
    "uflow": (128, 128),
}  # whose layers follow the size: of the paper's a step takes long


def paper(name: str) -> dict[str, object]:
    """The arguments of the constructor at the paper's budget."""
    given = arguments_for("paper", name, small=False) or {}
    return {key: value for key, value in given.items() if key != "size"}


def beyond_defaults() -> list[str]:
    """The methods whose paper budget is more than their defaults at the size at which the contract runs those."""

    def usual(name: str) -> object:
        known = parameters(name)
        return known["image_size"].default if "image_size" in known else (256, 256)

    papers = {name: arguments_for("paper", name, small=False) or {} for name in sorted(cards())}
    return [name for name, given in papers.items() if given != {"size": usual(name)}]


def photographs(count: int, side: int = 320) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (side, side, 3), dtype=np.uint8) for _ in range(count)]


def one_step_each(detector: Detector) -> Iterator[Phase]:
    """The detector's phases, training cut to one batch, and not more of it than two images."""
    for phase in type(detector).phases(detector):
        yield replace(phase, steps=1, batch_size=2) if isinstance(phase, Train) else phase


LONG = ("differnet", "salad", "uninet", "uninformed_students")  # ten seconds each


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in beyond_defaults()]
)
def test_a_paper_budget_is_constructed_and_takes_a_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the paper's size, of photographs of another one: it is not the images' own size that decides.

    A network that was not built for one size takes its step at a smaller one, through the same layers.
    """
    arguments = dict(arguments_for("paper", name, small=False) or {})
    size = arguments.pop("size", None)
    size = SIZES.get(name, size)
    if "weights" in parameters(name):
        arguments["weights"] = "none"  # which are not on this machine; the network is the paper's
    assert not arguments.keys() & NARROWER.get(name, {}).keys()
    arguments |= NARROWER.get(name, {})
    images = photographs(3) if size is not None else photographs(3, side=32)
    torch.manual_seed(0)
    detector, preprocess, _ = build(name, images, size, arguments)
    assert size is None or preprocess.shape(320, 320) in (size, (size, size))
    if "image_size" not in parameters(name) and max(preprocess.shape(*images[0].shape[:2])) > SMALLER:
        side = SIDES.get(name, SMALLER)
        preprocess = replace(preprocess, size=(side, side))
    labels = [0, 0, int(detector.needs_ng)]
    monkeypatch.setattr(detector, "phases", lambda: one_step_each(detector))
    run_phases(detector, TrainingImages(images, preprocess, labels=labels), device="cpu")
    assert all(tensor.isfinite().all() for tensor in detector.state_dict().values())


@pytest.mark.parametrize(("name", "steps"), [("aesc", 31_250), ("f_anogan", 159_375), ("ssim_autoencoder", 15_625)])
def test_the_paper_counts_steps_whatever_the_number_of_images(name: str, steps: int) -> None:
    arguments = paper(name)
    small = {"image_size": (32, 32), "width": 2}
    trains = [phase for phase in create(name, **{**arguments, **small}).phases() if isinstance(phase, Train)]
    assert sum(phase.steps or 0 for phase in trains) == steps


ADAM = (0.9, 0.999)  # the betas that nobody states


@pytest.mark.parametrize(
    ("name", "batch", "epochs", "stated"),
    [
        ("aesc", 16, None, [("Adam", 0.01 / 2**part, ADAM, 0) for part in range(5)]),
        ("f_anogan", 64, None, [("Adam", 1e-4, (0, 0.9), 0), ("Adam", 1e-4, (0, 0.9), 0), ("RMSprop", 5e-5, 0, 0)]),
        ("gan", 128, None, [("Adam", 2e-4, (0.5, 0.999), 0)] * 2),
        ("ocgan", 512, 201, [("Adam", 2e-4, (0.5, 0.999), 0)] * 4),  # of two networks each, before mining and with it
        ("ssim_autoencoder", 128, None, [("Adam", 2e-4, ADAM, 1e-5)]),
        ("stfpm", 32, 100, [("SGD", 0.4, 0.9, 1e-4)]),
    ],
)
def test_the_paper_budget_descends_as_the_paper_or_its_authors_code_states(
    name: str, batch: int, epochs: int | None, stated: list[tuple[object, ...]]
) -> None:
    """Batches, epochs where it counts those, and of each optimiser the rate, betas or momentum and weight decay."""
    arguments = paper(name)
    arguments |= {"weights": "none"} if "weights" in parameters(name) else {"image_size": (32, 32), "width": 2}
    trains = [phase for phase in create(name, **arguments).phases() if isinstance(phase, Train)]
    groups = [(update.optimizer, update.optimizer.param_groups[0]) for train in trains for update in train.updates]
    assert [
        (type(optimizer).__name__, group["lr"], group.get("betas", group.get("momentum")), group["weight_decay"])
        for optimizer, group in groups
    ] == stated
    assert {train.batch_size for train in trains} == {batch}
    assert epochs is None or sum(train.epochs for train in trains) == epochs
    assert (epochs is None) == all(train.steps for train in trains)
    if name == "f_anogan":
        assert [update.every for update in trains[0].updates] == [1, 5]  # five batches to the critic, one to the other


def test_a_budget_is_the_cards() -> None:
    card = cards()["autoencoder"].arguments
    assert arguments_for("cpu", "autoencoder", small=True) == card["cpu-small"]
    assert arguments_for("cpu", "autoencoder", small=False) == card["cpu-large"]
    assert arguments_for("paper", "autoencoder", small=True) == card["paper"]
    assert arguments_for("cpu", "vgg11", small=False) is None is arguments_for("cpu", "no_such_detector", small=True)


def test_a_budget_that_there_is_not() -> None:
    assert [arguments_for(budget, "gan", small=True) is None for budget in BUDGETS] == [False, False]
    with pytest.raises(OkngError, match="a budget is cpu or paper, not 'gpu'"):
        arguments_for("gpu", "gan", small=True)
