"""What a training phase may ask of the runner: schedules, clipping, hooks, views, validation, and all of it resumed."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor, nn

import okng
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, Train, Update
from okng.errors import OkngError
from okng.inspection.model_file import read_model, write_model
from okng.inspection.reading.images import Preprocess
from okng.nn.features.backbones import Backbone
from okng.training.images.data import AuxiliaryImages, TrainingImages
from okng.training.loop import checkpoint, descent, frozen, ranks
from okng.training.loop.losses import READ_EVERY, Losses, NoNumber
from okng.training.loop.phases import run_phases
from okng.training.progress import Narrator

Augment = Callable[[Tensor, torch.Generator], Any]


class Stop(Exception):
    """Stands for a kill."""


def images(count: int = 11, labels: list[int] | None = None, sizes: tuple[int, ...] = (4,)) -> TrainingImages:
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 255, (sizes[i % len(sizes)], 4, 3), np.uint8) for i in range(count)]
    return TrainingImages(pixels, Preprocess("RGB", (4, 4) if len(sizes) == 1 else 16, 4), labels=labels)


class Small(Detector):
    """One linear layer and one phase, `arguments` of it and of its only update as given."""

    def __init__(self, update: dict[str, Any] | None = None, epochs: int = 3, **phase: Any):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(3, 2)
        self.name, self.arguments = "small", {}
        self.update, self.epochs, self.phase = update or {}, epochs, phase
        self.batches: list[Batch] = []
        self.rates: list[float] = []

    def phases(self) -> Iterator[Phase]:
        self.optimizer = torch.optim.SGD(self.net.parameters(), 0.1)
        phase = {"epochs": self.epochs, "trains": [self.net], "batch_size": 4} | self.phase
        yield Train("small", [Update(self.loss, self.optimizer, **self.update)], **phase)

    def loss(self, batch: Batch) -> Tensor:
        self.batches.append(batch)
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        found: Tensor = self.net(batch.images.mean((2, 3))).square().mean()
        return found

    def forward(self, images: Tensor) -> Scores:
        return Scores(self.net(images.mean((2, 3))).square().sum(1))


def run(detector: Small, source: TrainingImages | None = None, **settings: Any) -> Small:
    run_phases(detector, source or images(), device="cpu", **settings)
    return detector


def test_a_schedule_multiplies_the_optimizers_own_rate_by_the_share_done() -> None:
    """Eleven images in batches of four: six steps in two epochs."""
    detector = run(Small({"schedule": lambda share: 1 - share}, epochs=2))
    np.testing.assert_allclose(detector.rates, [0.1 * (1 - step / 6) for step in range(6)], rtol=1e-12)


def test_a_schedule_of_steps_counts_those() -> None:
    shares: list[float] = []
    run(Small({"schedule": lambda share: shares.append(share) or 1.0}, steps=5))  # type: ignore[func-returns-value]
    assert shares == [0, 0.2, 0.4, 0.6, 0.8]


@pytest.mark.parametrize("precision", ["f32", "bf16", "f16"])
def test_a_long_gradient_is_shortened_to_clip(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its true length, though the gradients of f16 are 256 times as long before they are unscaled."""
    if precision == "f16":  # which Fabric itself has on GPUs only
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        half = Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision("16-mixed", "cpu", scaler))
        monkeypatch.setattr(ranks, "Fabric", lambda **settings: half)
    moved = {}
    for clip in (None, 1e-3, 1e3):
        detector = Small({"clip": clip}, epochs=1, steps=1)
        before = torch.cat([p.detach().flatten() for p in detector.net.parameters()])
        run(detector, precision=precision)
        after = torch.cat([p.detach().flatten() for p in detector.net.parameters()])
        moved[clip] = float((after - before).norm())
    assert moved[1e-3] == pytest.approx(0.1 * 1e-3, rel=0.02)
    assert moved[1e3] == moved[None] > 2 * moved[1e-3]


def test_a_gradient_that_overflows_in_f16_makes_its_step_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    half = Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision("16-mixed", "cpu", scaler))
    monkeypatch.setattr(ranks, "Fabric", lambda **settings: half)
    detector = Small({"clip": 1.0}, steps=1)
    before = detector.net.weight.detach().clone()
    assert torch.equal(run(detector, precision="f16").net.weight, before) and scaler.get_scale() < 2.0**40


def test_after_step_is_called_after_each_batch_without_gradients() -> None:
    called: list[tuple[int, bool]] = []
    detector = Small({"every": 2}, epochs=1)
    detector.phase["after_step"] = lambda: called.append((len(detector.batches), torch.is_grad_enabled()))
    run(detector)
    assert called == [(1, False), (1, False), (2, False)]


@pytest.mark.parametrize(("count", "sizes"), [(11, [4, 4]), (12, [4, 4, 4]), (3, [3])])
def test_drop_last_leaves_out_the_short_batch_if_there_is_a_full_one(count: int, sizes: list[int]) -> None:
    detector = run(Small(epochs=2, drop_last=True), images(count))
    assert [len(batch.images) for batch in detector.batches] == 2 * sizes


def test_a_loss_may_rise_where_the_phase_says_so() -> None:
    detector = Small({"schedule": lambda share: -30 * share})  # it climbs
    with pytest.raises(OkngError, match="its mean loss rose"):
        run(copy.deepcopy(detector))
    detector.phase["may_rise"] = True
    run(detector)


class Told(Small):
    """Its loss is what it is told, batch by batch: one epoch after the other, of three batches."""

    def __init__(self, *epochs: tuple[float, float, float]):
        super().__init__(epochs=len(epochs))
        self.told = [loss for epoch in epochs for loss in epoch]

    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) * 0 + self.told[len(self.batches) - 1]


@pytest.mark.parametrize(
    ("epochs", "rose"),
    [
        ([(0.3, -0.3, 0.04), (0.4, -0.2, 0.2)], False),  # bits near zero: twice nothing is nothing
        ([(0.3, -0.3, 0.04), (2.0, 2.0, 2.0)], True),
        ([(-3.0, -3.1, -3.2), (0.2, 0.3, 0.4)], True),  # a likelihood that is lost
        ([(-3.0, -3.1, -3.2), (-2.0, -2.1, -2.2)], False),
        ([(1.0, 1.1, 0.9), (1.9, 2.0, 1.8)], False),
        ([(1.0, 1.1, 0.9), (2.1, 2.2, 2.1)], True),
    ],
)
def test_a_rise_is_measured_by_the_loss_and_by_what_its_batches_lie_apart(
    epochs: list[tuple[float, float, float]], rose: bool, tmp_path: Path
) -> None:
    """Also where the first epoch lies before a resume."""
    everyone, path = images(12), tmp_path / "c"
    if not rose:
        run(Told(*epochs), everyone)
        return
    with pytest.raises(OkngError, match=r"diverged in epoch 2 [(]its mean loss rose"):
        run(Told(*epochs), everyone, checkpoint=path)
    resumed = Told(*epochs)
    resumed.told = resumed.told[3:]
    with pytest.raises(OkngError, match=r"diverged in epoch 2 [(]its mean loss rose"):
        run(resumed, everyone, checkpoint=path, resume=True)


def noisy(image: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return image + torch.rand(image.shape, generator=generator), torch.rand((), generator=generator)


def views_of(detector: Small) -> dict[tuple[int, int], Tensor]:
    """The noise of each view, by (epoch, image)."""
    found, per_epoch = {}, len(detector.batches) // detector.epochs
    for number, batch in enumerate(detector.batches):
        for row, index in enumerate(batch.index.tolist()):
            found[number // per_epoch, index] = batch.views[0][row] - batch.images[row]
    return found


def test_views_arrive_stacked_and_the_images_stay_plain() -> None:
    detector = run(Small(augment=noisy, epochs=1))
    for batch in detector.batches:
        assert batch.views[0].shape == batch.images.shape and batch.views[1].shape == (len(batch.images),)
        plain = torch.stack([images()[i] for i in batch.index.tolist()])
        assert torch.equal(batch.images, plain.float() / 255)
    single = run(Small(augment=lambda image, generator: image.mean(), epochs=1))
    assert [len(batch.views) for batch in single.batches] == [1, 1, 1]


def test_a_view_depends_on_seed_phase_epoch_and_image_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on the batch, the order, the other images, or the threads that made it."""
    first = views_of(run(Small(augment=noisy)))
    assert len(first) == 3 * 11
    drawn = torch.stack([view.flatten() for view in first.values()])  # (epochs x images, pixels)
    assert len(drawn.unique(dim=0)) == len(drawn)
    other_batches = views_of(run(Small(augment=noisy, batch_size=11)))
    part = run(Small(augment=noisy), images().subset([7, 2, 9]))
    monkeypatch.setattr("okng.training.loop.feed.THREADS", 1)
    one_thread = views_of(run(Small(augment=noisy)))
    for key, view in first.items():
        assert torch.equal(view, one_thread[key])
        torch.testing.assert_close(view, other_batches[key])
    for j, index in enumerate((7, 2, 9)):
        torch.testing.assert_close(views_of(part)[1, j], first[1, index])
    assert not torch.equal(views_of(run(Small(augment=noisy), seed=1))[0, 0], first[0, 0])


class Valley(Small):
    """Its only weight steps down by 1 each batch, and what validates is lowest at `bottom`."""

    def __init__(self, bottom: float, **phase: Any):
        super().__init__(may_rise=True, **phase)
        self.phase |= {"validate": self.validate, "batch_size": 100}
        self.bottom, self.validated = bottom, []
        self.net = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.net.weight)
        self.register_buffer("steps_done", torch.zeros(()))

    def loss(self, batch: Batch) -> Tensor:
        self.batches.append(batch)
        self.steps_done += 1
        return 10 * self.net.weight.sum()

    def validate(self, batch: Batch) -> Tensor:
        assert not self.net.training and not torch.is_grad_enabled()
        self.validated.append((batch.index.tolist(), float(torch.rand(()))))
        return (self.net.weight.sum() - self.bottom).abs() * batch.images.new_ones(()) + batch.labels.sum()


def test_the_epoch_with_the_lowest_validation_stays() -> None:
    detector = run(Valley(-2.0, epochs=5))
    assert detector.net.weight.item() == -2 and float(detector.steps_done) == 2
    assert run(Valley(-9.0, epochs=5)).net.weight.item() == -5  # still falling: the last
    assert run(Valley(-2.5, epochs=5)).net.weight.item() == -2  # as good as the third: the earlier


def test_a_fifth_validates_and_is_not_trained_on_and_ng_images_never_validate() -> None:
    labels = [1] * 6 + [0] * 20
    detector = run(Valley(-2.0, epochs=3), images(26, labels))
    held_back = detector.validated[0][0]
    assert len(held_back) == 4 and min(held_back) >= 6
    assert [found for found, _ in detector.validated] == 3 * [held_back]
    assert len({drawn for _, drawn in detector.validated}) == 1  # each epoch is asked the same
    for batch in detector.batches:
        assert sorted([*batch.index.tolist(), *held_back]) == list(range(26))
    other = run(Valley(-2.0, epochs=1), images(26, labels), seed=1)
    assert other.validated[0][0] != held_back


def test_each_phase_holds_back_others() -> None:
    """What one phase has chosen its epoch by, the next one learns."""

    class Twice(Valley):
        def phases(self) -> Iterator[Phase]:
            yield from super().phases()
            yield from super().phases()

    (first, _), (second, _) = run(Twice(-9.0, epochs=1), images(40)).validated
    assert len(first) == len(second) == 8 and first != second


def test_passes_see_what_the_phase_before_them_held_back_or_learnt() -> None:
    """Which learns without validating; of too few images all are learnt, and all are seen."""

    class HoldsBack(Small):
        def phases(self) -> Iterator[Phase]:
            self.phase |= {"holds_back": True}
            yield from super().phases()
            self.seen: list[int] = []
            yield Collect("held back", lambda b: self.seen.extend(b.index.tolist()), lambda: None, held_back=True)
            yield Collect("all", lambda b: self.seen.extend(b.index.tolist()), lambda: None)
            self.again: list[int] = []
            yield Collect("learnt", lambda b: self.again.extend(b.index.tolist()), lambda: None, learnt=True)
            yield Collect("held back", lambda b: self.again.extend(b.index.tolist()), lambda: None, held_back=True)

    detector = run(HoldsBack(), images(26, [1] * 6 + [0] * 20))
    held_back = detector.seen[:4]
    assert detector.seen[4:] == list(range(26)) and min(held_back) >= 6
    assert detector.again == [i for i in range(26) if i not in held_back] + held_back
    for batch in detector.batches:
        assert not {*held_back} & {*batch.index.tolist()}
    assert {i for batch in detector.batches for i in batch.index.tolist()} == {*range(26)} - {*held_back}
    few = run(HoldsBack(), images(4))
    assert few.seen == few.again == 2 * list(range(4))


def test_near_copies_are_not_parted_by_what_is_held_back() -> None:
    """Thirty parts, each in three frames that differ by noise: what is learnt has no frame of what validates."""
    rng = np.random.default_rng(0)
    parts = rng.integers(30, 220, (30, 1, 8, 8, 3)).repeat(3, 1)  # (part, frame, 8, 8, 3)
    frames = (parts + rng.normal(0, 0.6, parts.shape)).astype(np.uint8).reshape(90, 8, 8, 3)
    detector = run(Valley(-2.0, epochs=1), TrainingImages(list(frames), Preprocess("RGB", (8, 8))))
    held_back = detector.validated[0][0]
    assert len(held_back) == 18 and [i // 3 for i in held_back[::3]] == [i // 3 for i in held_back[2::3]]
    assert not {i // 3 for i in held_back} & {i // 3 for i in detector.batches[0].index.tolist()}


def test_groups_that_a_person_gave_are_not_parted_either() -> None:
    """Twenty lots of three images that are nothing like each other."""
    everyone, lots = images(60), np.random.default_rng(1).permutation(60) % 20
    everyone.groups = lots
    detector = run(Valley(-2.0, epochs=1), everyone.subset(range(57)))
    held_back, learnt = detector.validated[0][0], detector.batches[0].index.tolist()
    assert 9 <= len(held_back) <= 11 and sorted([*held_back, *learnt]) == list(range(57))
    assert not {*lots[held_back]} & {*lots[learnt]}


def test_each_of_several_products_validates_where_it_has_enough_images() -> None:
    """Of 40, 10 and 3 images; one group has an image of either of the first two."""
    everyone = images(53)
    everyone.products = np.repeat([0, 1, 2], [40, 10, 3])
    everyone.groups = np.array([*range(40), 7, *range(41, 53)])
    for seed in range(5):
        held_back = run(Valley(-2.0, epochs=1), everyone.subset(range(53)), seed=seed).validated[0][0]
        of_each = np.bincount(everyone.products[held_back], minlength=3).tolist()
        assert of_each == [8, 2, 0] and (7 in held_back) == (40 in held_back)


def test_where_every_group_is_too_large_none_validates_and_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    everyone = images(12)
    everyone.groups = np.arange(12) % 3
    detector = run(Valley(-2.0, epochs=3), everyone, tell=Narrator())
    assert detector.validated == [] and detector.net.weight.item() == -3
    assert "no group is a fifth of the images or less" in capsys.readouterr().err


def test_fits_and_updates_hand_on_the_groups_they_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """NG images are in none."""
    rng, lots, handed = np.random.default_rng(0), [7, 5, 7, 5, 6, 6, 4, 4], []
    pixels = list(rng.integers(0, 255, (16, 32, 32, 3), np.uint8))

    def watched(detector: Detector, learnt: TrainingImages, **settings: Any) -> list[dict[str, Any]]:
        assert learnt.groups is not None
        handed.append({place: int(group) for place, group in zip(learnt.places, learnt.groups, strict=True)})
        return run_phases(detector, learnt, **settings)

    for module in ("okng.training.fit.run_phases", "okng.training.update.run_phases"):
        monkeypatch.setattr(module, watched)
    settings: dict[str, Any] = {"group_by": lots, "holdout": 0.3, "device": "cpu"}
    fitted = okng.fit(pixels[:8], "mahalanobis", backbone="test_resnet", strides=(4,), weights="none", **settings)
    okng.update(fitted, pixels[8:], **settings)
    okng.fit(pixels[:8], "vgg11", ng=pixels[8:10], width=2, epochs=1, **settings)
    numbers = dict(enumerate([0, 1, 0, 1, 2, 2, 3, 3]))
    assert [len(each) for each in handed] == [6, 6, 8] and [handed[2].pop(ng) for ng in (8, 9)] == [-1, -1]
    assert all(each.items() <= numbers.items() for each in handed)


def test_of_four_images_none_is_held_back() -> None:
    detector = run(Valley(-2.0, epochs=3), images(4))
    assert detector.validated == [] and detector.net.weight.item() == -3


def test_phases_counted_in_steps_validate_where_they_save(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descent, "SAVED_AFTER", 4)
    detector = run(Valley(-8.9, steps=10))  # epochs of one batch
    assert len(detector.validated) == 3 and detector.net.weight.item() == -8  # after 4, 8 and 10 batches


def test_a_validation_that_is_no_number_is_divergence() -> None:
    detector = Valley(float("nan"), epochs=2)
    with pytest.raises(OkngError, match=r"diverged in epoch 1 .*its validation is nan"):
        run(detector)


class Everything(Detector):
    """A student of a frozen backbone's features of noisy views, with all that a phase may ask for, twice.

    A critic learns in turn with the student, and weights averaged over its steps lie beside it. `die_at` raises in a
    batch, as a kill would.
    """

    def __init__(self) -> None:
        super().__init__()
        self.teacher = Backbone("efficientnet_lite0", (2,), "none").eval().requires_grad_(False)
        self.student = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.Dropout(0.1))
        self.average = copy.deepcopy(self.student).requires_grad_(False)
        self.critic = nn.Linear(16, 1)
        self.register_buffer("seen", torch.zeros(()))
        self.batches, self.die_at, self.name, self.arguments = 0, -1, "everything", {}

    def phases(self) -> Iterator[Phase]:
        for number in range(2):
            student = torch.optim.Adam(self.student.parameters(), 1e-2)
            critic = torch.optim.SGD(self.critic.parameters(), 0.1, momentum=0.9)
            yield Train(
                f"part {number}",
                [
                    Update(self.loss, student, schedule=lambda share: 0.5 ** int(5 * share), clip=0.1),
                    Update(self.judge, critic, every=2, schedule=lambda share: 1 - share),
                ],
                4,
                [self.student, self.critic],
                4,
                after_step=self.follow if number else None,
                augment=noisy,
                drop_last=True,
                validate=self.loss_of,
                may_rise=True,
            )

    def loss_of(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            taught = self.teacher(batch.views[0])[0]  # (B, 16, h, w)
        assert batch.auxiliary is not None
        copied = (self.student(batch.images) - taught).square().mean()
        found: Tensor = copied + batch.views[1].mean() + self.student(batch.auxiliary).square().mean()
        return found

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        self.batches += 1
        if self.batches == self.die_at:
            raise Stop
        self.seen += 1
        return {"copy": self.loss_of(batch), "critic": -self.critic(self.student(batch.images).mean((2, 3))).mean()}

    def judge(self, batch: Batch) -> Tensor:
        found: Tensor = self.critic(self.student(batch.images).mean((2, 3))).square().mean()
        return found

    def follow(self) -> None:
        for mine, theirs in zip(self.average.parameters(), self.student.parameters(), strict=True):
            mine.lerp_(theirs, 0.1)

    def forward(self, images: Tensor) -> Scores:
        return Scores((self.student(images) - self.average(images)).square().mean((1, 2, 3)))


def pictures() -> TrainingImages:
    rng = np.random.default_rng(0)
    return TrainingImages(list(rng.integers(0, 255, (13, 8, 8, 3), np.uint8)), Preprocess("RGB", (8, 8)))


def fit_everything(detector: Everything, **settings: Any) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    textures = AuxiliaryImages(list(rng.integers(0, 255, (5, 3, 9, 3), np.uint8)), pictures().preprocess)
    return run_phases(detector, pictures(), seed=3, device="cpu", auxiliary=textures, **settings)


@functools.cache
def built() -> Everything:
    torch.manual_seed(0)
    return Everything()


def everything(die_at: int = -1) -> Everything:
    detector = copy.deepcopy(built())
    detector.die_at = die_at
    return detector


@pytest.fixture(scope="module")
def whole() -> Everything:
    detector = everything()
    fit_everything(detector)
    return detector


def same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


def test_killed_after_every_epoch_it_ends_as_if_it_had_not_been(
    whole: Everything, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Schedule, clipping, an average of weights, views, auxiliary images and validation: to the last bit."""

    def write_and_die(path: Path, *what: Any) -> None:
        write_model(path, *what)
        raise Stop

    monkeypatch.setattr(checkpoint, "write_model", write_and_die)
    for life in range(20):
        resumed = everything()
        torch.manual_seed(life)
        if life:
            nn.init.normal_(resumed.student[0].weight)  # what the checkpoint holds must win
        try:
            fit_everything(resumed, checkpoint=tmp_path / "c", resume=True)
            break
        except Stop:
            continue
    assert life == 10  # four epochs and an end, twice
    assert same(whole, resumed)


@pytest.mark.parametrize("die_at", [3, 13])
def test_killed_within_an_epoch_too(whole: Everything, tmp_path: Path, die_at: int) -> None:
    with pytest.raises(Stop):
        fit_everything(everything(die_at=die_at), checkpoint=tmp_path / "c")
    torch.manual_seed(99)
    resumed = everything()
    fit_everything(resumed, checkpoint=tmp_path / "c", resume=True)
    assert same(whole, resumed)


def test_frozen_backbones_are_compiled_while_there_are_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where a step moves what might be an average of one, and not for a few images."""
    detector = everything()
    compiled: list[bool] = []
    loss_of = detector.loss_of

    def watched(batch: Batch) -> Tensor:
        compiled.append(detector.teacher.engine is not None)
        return loss_of(batch)

    monkeypatch.setattr(detector, "loss_of", watched)
    for pays_from, expected in ((32, find_spec("openvino") is not None), (33, False)):
        compiled.clear()
        monkeypatch.setattr(frozen, "COMPILE_FROM", pays_from)  # two batches of four in each of four epochs are 32
        fit_everything(detector)
        half = len(compiled) // 2
        assert set(compiled[:half]) == {expected} and not any(compiled[half:])
        assert detector.teacher.engine is None


class Moves(Detector):
    """Two frozen backbones, one of which is an average that each step moves."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher, self.average = (built_backbone() for _ in range(2))
        self.net = nn.Linear(3, 1)
        self.name, self.arguments = "moves", {}

    def phases(self) -> Iterator[Phase]:
        optimizer = torch.optim.SGD(self.net.parameters(), 0.1)
        yield Train("moves", [Update(self.loss, optimizer)], 2, [self.net], after_step=self.follow)

    def loss(self, batch: Batch) -> Tensor:
        found: Tensor = self.net(batch.images.mean((2, 3))).square().mean()
        return found

    def follow(self) -> None:
        for weight in self.average.parameters():
            weight.mul_(0.5)


def built_backbone() -> Backbone:
    return copy.deepcopy(built().teacher)


def test_a_checkpoint_holds_no_frozen_backbone_unless_something_moved_it(tmp_path: Path) -> None:
    detector = Moves()
    run_phases(detector, pictures(), device="cpu", checkpoint=tmp_path / "c")
    names = {name.split(".")[1] for name in read_model(tmp_path / "c")[1]}
    assert names == {"average", "net"}
    resumed = Moves()
    run_phases(resumed, pictures(), device="cpu", checkpoint=tmp_path / "c", resume=True)
    assert same(resumed, detector)
    other = Moves()
    with torch.no_grad():
        next(other.teacher.parameters())[0] += 1e-6
    with pytest.raises(OkngError, match="other settings"):
        run_phases(other, pictures(), device="cpu", checkpoint=tmp_path / "c", resume=True)


@pytest.mark.parametrize("write", ["counted", "through .data"])
def test_frozen_backbones_are_read_again_only_once_something_wrote_to_them(
    write: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[nn.Module] = []
    digest = checkpoint._digest
    monkeypatch.setattr(checkpoint, "_digest", lambda module: read.append(module) or digest(module))  # type: ignore
    detector = Moves()
    if write == "through .data":

        def follow() -> None:
            for weight in detector.average.parameters():
                weight.data.mul_(0.5)

        detector.follow = follow  # type: ignore[method-assign]
    run_phases(detector, pictures(), device="cpu", checkpoint=tmp_path / "c")
    times = [sum(module is backbone for module in read) for backbone in (detector.teacher, detector.average)]
    assert times == [1, 4]  # at the beginning; after two epochs and at the end
    assert {name.split(".")[1] for name in read_model(tmp_path / "c")[1]} == {"average", "net"}


def test_the_history_has_the_means_of_each_epoch(whole: Everything, tmp_path: Path) -> None:
    """Each image counting the same, of the last short batch too; with several losses, by whose they are."""
    detector = Small(epochs=2)
    rows = run_phases(detector, images(), device="cpu")
    with torch.no_grad():
        nets = [float(detector.loss(batch)) * len(batch.images) for batch in detector.batches[3:6]]  # by the last net
    assert [(row["phase"], row["epoch"], [*row["losses"]]) for row in rows] == [
        ("small", 1, ["loss"]), ("small", 2, ["loss"]),
    ]  # fmt: skip
    assert rows[0]["losses"]["loss"] > rows[1]["losses"]["loss"] > sum(nets) / 11
    still = Small({"schedule": lambda share: 0.0}, epochs=1)
    (row,) = run_phases(still, images(), device="cpu")
    everyone = torch.stack([image.float() / 255 for image in map(images().__getitem__, range(11))])
    assert row["losses"]["loss"] == pytest.approx(still.loss(Batch(everyone, torch.arange(11))).item(), rel=1e-5)
    rows = fit_everything(everything())
    assert [*rows[-1]["losses"]] == ["loss: copy", "loss: critic", "judge"]
    assert len(rows) == 8 and all(row["validation"] > 0 for row in rows)
    with pytest.raises(Stop):
        fit_everything(everything(die_at=13), checkpoint=tmp_path / "c")
    again = fit_everything(everything(), checkpoint=tmp_path / "c", resume=True)
    assert again == rows


def test_a_long_phase_of_steps_has_a_row_for_each_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descent, "SAVED_AFTER", 4)
    rows = run_phases(Small(steps=10, batch_size=100), images(), device="cpu")
    assert [row["epoch"] for row in rows] == [4, 8, 10]


def test_losses_are_read_from_a_gpu_every_so_many_and_from_a_cpu_at_once() -> None:
    updates = [Update(Small().loss, torch.optim.SGD([torch.zeros(1)], 0.1))]
    on_gpu, on_cpu = Losses(updates, torch.device("cuda")), Losses(updates, torch.device("cpu"))
    for step in range(READ_EVERY - 1):
        on_gpu.add(0, torch.tensor(float(step)), 2)
    assert on_gpu.latest == {}
    on_gpu.add(0, torch.tensor(100.0), 2)
    assert on_gpu.latest == {0: 100.0}
    with pytest.raises(NoNumber, match="its loss is nan"):
        on_cpu.add(0, {"a": torch.tensor(1.0), "b": torch.tensor(float("nan"))}, 2)
    on_gpu.add(0, torch.tensor(float("inf")), 2)
    with pytest.raises(NoNumber, match="its loss is inf"):
        on_gpu.means()


def test_losses_without_a_name_are_numbered() -> None:
    """As a `functools.partial` is, beside a function that has a name."""
    optimizer = torch.optim.SGD([torch.zeros(1)], 0.1)
    updates = [Update(functools.partial(Small().loss), optimizer), Update(Small().loss, optimizer)]
    losses = Losses(updates, torch.device("cpu"))
    for number in range(2):
        losses.add(number, torch.tensor(float(number)), 3)
    assert losses.means() == {"update 1": 0.0, "update 2": 1.0}


def test_losses_of_one_name_are_told_apart() -> None:
    both = [Update(Small().loss, torch.optim.SGD([torch.zeros(1)], 0.1))] * 2
    losses = Losses(both, torch.device("cpu"))
    losses.add(0, torch.tensor(1.0), 3)
    losses.add(1, {"a": torch.tensor(2.0)}, 3)
    losses.add(1, {"a": torch.tensor(5.0)}, 1)
    assert losses.means() == {"update 1": 1.0, "update 2: a": (2.0 * 3 + 5) / 4} and losses.means() == {}
