"""The runner: phases in order, seeds, checkpoints, a kill in the middle, divergence."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.contract.conftest import pictures
from torch import Tensor, nn

import okng
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, Train, Update
from okng.detectors.catalogue import create
from okng.errors import OkngError
from okng.inspection.model_file import read_model
from okng.inspection.reading.images import Preprocess
from okng.training.images.data import FeatureStore, SharedFeatures, TrainingImages
from okng.training.loop import checkpoint, descent
from okng.training.loop.phases import run_phases
from okng.training.loop.seeds import seed_torch
from okng.training.progress import Narrator


class Stop(Exception):
    """Stands for a kill."""


class TwoPhases(Detector):
    """A centre, then a network trained towards it, then a statistic of the network's output: each needs the one before.

    `die_at` raises in the n-th training batch, as a kill would.
    """

    def __init__(
        self,
        epochs: int = 3,
        die_at: int = -1,
        explode: bool = False,
        run_away: bool = False,
        steps: int | None = None,
        every: int = 1,
    ):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
        self.frozen = nn.Linear(48, 4).requires_grad_(False)
        self.register_buffer("centre", torch.zeros(0))
        self.register_buffer("spread", torch.zeros(()))
        self.epochs, self.die_at, self.explode, self.run_away = epochs, die_at, explode, run_away
        self.seen, self.prepared_calls, self.steps, self.every = 0, 0, steps, every
        self.name, self.arguments = "two-phases", {"epochs": epochs}

    def phases(self) -> Iterator[Phase]:
        total: list[Tensor] = []
        yield Collect(
            "centre",
            lambda batch: total.append(self.frozen(batch.images.flatten(1))),
            lambda: setattr(self, "centre", torch.cat(total).mean(0)),
        )
        nn.init.normal_(self.net[4].weight, float(self.centre.mean()))  # changed and drawn between two phases
        optimizer = torch.optim.Adam(self.net.parameters(), 1e-2)
        updates = [Update(self.loss, optimizer, self.every)]
        yield Train("net", updates, self.epochs, [self.net], 4, self.prepare, self.steps)
        outputs: list[Tensor] = []
        yield Collect(
            "spread",
            lambda batch: outputs.append(self.net(batch.images)),
            lambda: setattr(self, "spread", torch.cat(outputs).std()),
        )

    def prepare(self, images: Tensor) -> Tensor:
        self.prepared_calls += len(images)
        return self.frozen(images.flatten(1))

    def loss(self, batch: Batch) -> Tensor:
        self.seen += 1
        if self.seen == self.die_at:
            raise Stop
        factor = float("inf") if self.explode else 1.0
        if self.run_away and self.seen > 6:  # from the third epoch of three batches on
            factor = 50.0
        return factor * (self.net(batch.images) - batch.prepared[0] - self.centre).square().mean()

    def forward(self, images: Tensor) -> Scores:
        return Scores((self.net(images) - self.centre).square().sum(1) / self.spread)


def images(seed: int = 0) -> TrainingImages:
    pixels = np.random.default_rng(seed).integers(0, 255, (10, 4, 4, 3), np.uint8)
    return TrainingImages(list(pixels), Preprocess("RGB", (4, 4)))


def built(**arguments: int | bool) -> TwoPhases:
    torch.manual_seed(0)
    return TwoPhases(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("die_at", [1, 4, 5, 8])
def test_a_killed_fit_resumes_to_the_same_result(die_at: int, tmp_path: Path) -> None:
    whole = built()
    run_phases(whole, images(), seed=3, device="cpu")
    torch.manual_seed(99)  # whatever happened in between must not matter
    with pytest.raises(Stop):
        run_phases(built(die_at=die_at), images(), seed=3, device="cpu", checkpoint=tmp_path / "c")
    torch.manual_seed(7)
    resumed = TwoPhases()  # other random weights: the checkpoint's must win
    run_phases(resumed, images(), seed=3, device="cpu", checkpoint=tmp_path / "c", resume=True)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


class Counting(torch.optim.SGD):
    """Whose rate falls by a count that is a plain number, as some optimisers' are, and not a tensor."""

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            count = self.state[parameter].setdefault("count", 0) + 1
            self.state[parameter]["count"] = count
            with torch.no_grad():
                parameter -= 1e-2 / count * parameter.grad


def test_what_an_optimizer_counts_is_stored_too_and_resuming_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.optim, "Adam", Counting)
    said: list[str] = []
    tell = Narrator(quiet=True)
    monkeypatch.setattr(tell, "say", said.append)
    whole, resumed = built(), TwoPhases()
    run_phases(whole, images(), seed=3, device="cpu")
    with pytest.raises(Stop):
        run_phases(built(die_at=8), images(), seed=3, device="cpu", checkpoint=tmp_path / "c")
    run_phases(resumed, images(), seed=3, device="cpu", checkpoint=tmp_path / "c", resume=True, tell=tell)
    assert said == [f"going on from {tmp_path / 'c'}: phase 2, epoch 3"]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


@pytest.mark.parametrize(("steps", "batches"), [(1, 1), (7, 7), (9, 9)])
def test_steps_take_the_place_of_epochs(steps: int, batches: int) -> None:
    """Ten images make three batches of four at most: seven are two epochs and a third of the third."""
    detector = built(steps=steps)
    run_phases(detector, images(), device="cpu")
    assert detector.seen == batches


def test_as_many_steps_as_the_epochs_have_are_the_same_fit() -> None:
    by_epochs, by_steps = built(epochs=2), built(steps=6)
    for detector in (by_epochs, by_steps):
        run_phases(detector, images(), seed=3, device="cpu")
    for name, tensor in by_epochs.state_dict().items():
        assert torch.equal(tensor, by_steps.state_dict()[name]), name


@pytest.mark.parametrize("die_at", [4, 6, 8, 11])
def test_a_killed_fit_that_counts_steps_resumes_to_the_same_result(
    die_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the last epoch that ended another `SAVED_AFTER` batches: here the second, after six."""
    monkeypatch.setattr(descent, "SAVED_AFTER", 5)
    whole = built(steps=11)
    run_phases(whole, images(), seed=3, device="cpu")
    with pytest.raises(Stop):
        run_phases(built(steps=11, die_at=die_at), images(), seed=3, device="cpu", checkpoint=tmp_path / "c")
    assert read_model(tmp_path / "c")[0]["epoch"] == (2 if die_at > 6 else 0)
    resumed = TwoPhases(steps=11)
    run_phases(resumed, images(), seed=3, device="cpu", checkpoint=tmp_path / "c", resume=True)
    assert resumed.seen == (5 if die_at > 6 else 11)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_thousands_of_tiny_epochs_are_not_thousands_of_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    monkeypatch.setattr(checkpoint, "write_model", lambda path, manifest, tensors: written.append(manifest["epoch"]))
    run_phases(built(steps=1201), images(), device="cpu", checkpoint=tmp_path / "c")
    assert written == [0, 167, 334, 0, 0]  # after 501 and 1002 batches, and after each phase


def test_a_step_that_is_taken_on_every_nth_batch_counts_on_across_epochs() -> None:
    """Three batches an epoch: of six, the first and the sixth are the first of five; not the first of each epoch."""
    detector = built(epochs=3, every=5)
    run_phases(detector, images(), device="cpu")
    assert detector.seen == 2


def test_no_two_epochs_draw_alike() -> None:
    drawn = []
    for phase, epoch in ((0, 1), (0, 10_005), (0, 10_006), (0, 10_007), (0, 20_015), (1, 0), (1, 1)):
        seed_torch(0, phase, epoch)
        drawn.append(float(torch.rand(1, dtype=torch.float64)))
    assert len(set(drawn)) == len(drawn)


def test_progress_of_steps_is_counted_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[str, float, float]] = []
    tell = Narrator(quiet=True)
    monkeypatch.setattr(tell, "begin", lambda name, total, done=0: begun.append((name, total, done)))
    advanced: list[tuple[float, str]] = []
    monkeypatch.setattr(tell, "advance", lambda steps=1, note="": advanced.append((steps, note.partition("  ")[0])))
    run_phases(built(steps=4), images(), device="cpu", tell=tell)
    assert ("net", 4, 0) in begun
    assert [note for _, note in advanced if "step" in note] == ["step 1/4", "step 2/4", "step 3/4", "step 4/4"]


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    run_phases(built(), images(), seed=3, device="cpu", checkpoint=tmp_path / "c")
    settings = {"seed": 3, "device": "cpu", "checkpoint": tmp_path / "c", "resume": True}
    run_phases(built(), images(), **settings)  # type: ignore[arg-type]
    for other in ({"seed": 4}, {"precision": "bf16-mixed"}):
        with pytest.raises(OkngError, match="other settings"):
            run_phases(built(), images(), **{**settings, **other})  # type: ignore[arg-type]


def test_a_checkpoint_of_other_pixels_under_the_same_names_is_refused(tmp_path: Path) -> None:
    names = [tmp_path / f"{i}.png" for i in range(10)]

    def fit(seed: int, resume: bool) -> None:
        for name, pixels in zip(names, images(seed).sources, strict=True):
            Image.fromarray(pixels).save(name)
        files = TrainingImages(names, Preprocess("RGB", (4, 4)))
        run_phases(built(), files, device="cpu", checkpoint=tmp_path / "c", resume=resume)

    fit(0, resume=False)
    fit(0, resume=True)
    with pytest.raises(OkngError, match="other images"):
        fit(1, resume=True)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"device": "tpu"}, "device is auto, cpu, cuda or mps, not 'tpu'"),
        ({"device": "cuda:1"}, "device is .*; CUDA_VISIBLE_DEVICES says which"),
        ({"device": "cpu", "precision": "nope"}, "precision is f32, bf16 or f16, not 'nope'"),
    ],
)
def test_devices_and_precisions_are_named(given: dict[str, str], words: str) -> None:
    with pytest.raises(OkngError, match=words):
        run_phases(built(), images(), **given)  # type: ignore[arg-type]
    with pytest.raises(OkngError, match=words):  # before it looks at the images, which are none
        okng.fit("no/such/folder", "padim", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_said(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(OkngError, match=f"can't use the device '{device}' .*; take --device cpu"):
        okng.fit("no/such/folder", "padim", device=device)


def test_prepare_runs_once_per_image() -> None:
    detector = built(epochs=5)
    run_phases(detector, images(), device="cpu")
    assert detector.prepared_calls == 10


def test_divergence_is_one_line_and_leaves_the_last_good_state(tmp_path: Path) -> None:
    with pytest.raises(OkngError, match=r"diverged in epoch 1 \(its loss is inf"):
        run_phases(built(explode=True), images(), device="cpu", checkpoint=tmp_path / "c")
    manifest, arrays = read_model(tmp_path / "c")
    assert (manifest["phase"], manifest["epoch"]) == (1, 0)
    assert all(np.isfinite(array).all() for array in arrays.values())


@pytest.mark.parametrize("die_at", [-1, 5])
def test_a_loss_that_rises_is_divergence_too(tmp_path: Path, die_at: int) -> None:
    """Finite, and measured against the first epoch even where that lies before a resume."""
    path = tmp_path / "c"
    if die_at > 0:
        with pytest.raises(Stop):
            run_phases(built(die_at=die_at), images(), device="cpu", checkpoint=path)
    detector = built(run_away=True)
    detector.seen = 3 if die_at > 0 else 0  # the first epoch is behind it
    with pytest.raises(
        OkngError, match=r"net diverged in epoch 3 \(its mean loss rose from .* to .*smaller learning rate"
    ):
        run_phases(detector, images(), device="cpu", checkpoint=path, resume=True)


def test_training_mode_ends_with_the_phase() -> None:
    detector = built(die_at=2)
    with pytest.raises(Stop):
        run_phases(detector, images(), device="cpu")
    assert not detector.net.training


def test_batches_have_one_shape_and_cover_everything() -> None:
    rng = np.random.default_rng(0)
    sizes = [(20, 30), (30, 20), (20, 30), (40, 40), (20, 30)]
    mixed = TrainingImages([rng.integers(0, 255, (*s, 3), np.uint8) for s in sizes], Preprocess("RGB", 24, 8))
    torch.manual_seed(0)
    groups = mixed.batches(2, shuffle=True)
    assert sorted(i for g in groups for i in g) == list(range(5)) and all(len(g) <= 2 for g in groups)
    for indices, pixels in mixed.load(groups):
        assert pixels.dtype == torch.uint8 and pixels.shape[0] == len(indices)
        assert torch.equal(pixels[0], mixed[indices[0]])


@pytest.mark.parametrize("budget", [1 << 20, 10])
def test_the_feature_store_gives_back_what_it_got(budget: int) -> None:
    """To the last bit, on disk too, in any type of number, transposed or of no channels."""
    store = FeatureStore(4, budget)
    features = [
        (torch.randn(3, 2, 4).mT, torch.randn(5, dtype=torch.bfloat16), torch.empty(0, 2), torch.tensor(i))
        for i in range(4)
    ]
    for i in (2, 0, 3, 1):
        store.put(i, features[i])
    for found, *given in zip(store.get([1, 3]), features[1], features[3], strict=True):
        assert found.dtype == given[0].dtype and torch.equal(found, torch.stack(given))
    store.close()


def test_the_feature_store_counts_bytes_as_they_come() -> None:
    """Not by the first image: small ones first, and later ones would have filled the memory."""
    store, features = FeatureStore(6, budget=1000), [(torch.randn(size),) for size in (10, 100, 10, 300, 100, 10)]
    for i, each in enumerate(features):
        store.put(i, each)
    assert list(store._memory) == [0, 1, 2, 4, 5] and list(store._places) == [3] and len(store) == 6
    assert all(torch.equal(store.get([i])[0][0], each[0]) for i, each in enumerate(features))
    store.close()


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = FeatureStore(4, budget=10)
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OkngError, match=r"features of 4 images take .* GB .*No space left.*set TMPDIR"):
        store.put(0, (torch.randn(8),))


class TwoPasses(Detector):
    """Two passes over the same frozen features."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(48, 4).requires_grad_(False)
        self.register_buffer("centre", torch.zeros(4))
        self.register_buffer("spread", torch.zeros(4))
        self.name, self.arguments, self.prepared_calls = "two-passes", {}, 0

    def phases(self) -> Iterator[Phase]:
        seen: list[Tensor] = []
        centre = lambda: setattr(self, "centre", torch.cat(seen).mean(0))  # noqa: E731
        yield Collect("centre", lambda batch: seen.append(batch.prepared[0]), centre, self.prepare)
        far: list[Tensor] = []
        spread = lambda: setattr(self, "spread", torch.cat(far).square().mean(0))  # noqa: E731
        yield Collect("spread", lambda batch: far.append(batch.prepared[0] - self.centre), spread, self.prepare)

    def prepare(self, images: Tensor) -> Tensor:
        self.prepared_calls += len(images)
        return torch.stack([self.frozen(image.flatten()) for image in images])  # the same in any batch


def test_fits_on_parts_share_what_is_frozen_and_end_as_each_alone(tmp_path: Path) -> None:
    everything = images()
    parts = [[0, 1, 2, 5, 8], [9, 3, 4, 6, 7], range(10)]
    calls = 0
    with SharedFeatures(everything) as shared:
        for k, part in enumerate(parts):
            torch.manual_seed(0)
            together = TwoPasses()
            run_phases(together, everything.subset(part), device="cpu", shared=shared, checkpoint=tmp_path / f"{k}")
            calls += together.prepared_calls
            torch.manual_seed(0)
            alone = TwoPasses()
            run_phases(alone, everything.subset(part), device="cpu")
            assert alone.prepared_calls == 2 * len(part)
            for name, tensor in alone.state_dict().items():
                assert torch.equal(tensor, together.state_dict()[name]), name
        again = TwoPasses()
        run_phases(again, everything, device="cpu", shared=shared, checkpoint=tmp_path / "2", resume=True)
        assert torch.equal(again.spread, together.spread) and again.prepared_calls == 0
    assert calls == 10


def test_passes_over_other_features_share_none() -> None:
    """What is shared belongs to its `prepare`: a second one's features are its own."""
    seen: dict[str, list[Tensor]] = {"mean": [], "spread": []}

    class TwoKinds(TwoPasses):
        def phases(self) -> Iterator[Phase]:
            for name, made in (("mean", lambda x: x.mean((1, 2, 3))), ("spread", lambda x: x.std((1, 2, 3)))):
                visit = lambda batch, name=name: seen[name].append(batch.prepared[0])  # noqa: E731
                yield Collect(name, visit, lambda: None, made)

    with SharedFeatures(images()) as shared:
        run_phases(TwoKinds(), images(), device="cpu", shared=shared)
        assert len(shared.stores) == 2
    everyone = torch.stack([image.float() / 255 for image in map(images().__getitem__, range(10))])
    torch.testing.assert_close(torch.cat(seen["mean"]), everyone.mean((1, 2, 3)))
    torch.testing.assert_close(torch.cat(seen["spread"]), everyone.std((1, 2, 3)))


def test_a_pass_over_features_sees_shapes_and_no_pixels() -> None:
    seen: list[Tensor] = []

    class Looks(TwoPasses):
        def phases(self) -> Iterator[Phase]:
            yield Collect("look", lambda batch: seen.append(batch.images), lambda: None, self.prepare)

    run_phases(Looks(), images(), device="cpu")
    run_phases(Looks(), images(), device="cpu", shared=SharedFeatures(images()))
    assert [batch.shape for batch in seen] == [(10, 3, 4, 4)] * 2 and all(batch.is_meta for batch in seen)


@pytest.mark.parametrize("name", ["patchcore", "padim"])
def test_memories_and_gaussians_of_shared_features_are_those_of_a_fit_alone(name: str) -> None:
    """To the last bit, from where a compiled backbone takes each image by itself (`COMPILE_FROM`)."""
    everything = TrainingImages(list(pictures(70, seed=1)), Preprocess("RGB", (64, 64), 16))
    part = everything.subset(range(3, 68))
    with SharedFeatures(everything) as shared:
        for settings in ({"shared": shared}, {}, {"shared": shared}):
            torch.manual_seed(0)
            detector = create(name, weights="none")
            run_phases(detector, part, device="cpu", **settings)  # type: ignore[arg-type]
            state = detector.state_dict()
            if settings:
                shared_state = state
            else:
                assert all(torch.equal(tensor, shared_state[key]) for key, tensor in state.items())


class KeepsFeatures(Detector):
    """Gathers what a layer says of the images, as memories do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(48, 4).requires_grad_(False)
        self.register_buffer("memory", torch.zeros(0, 4))
        self.name, self.arguments = "keeps-features", {}

    def phases(self) -> Iterator[Phase]:
        """One pass."""
        seen: list[Tensor] = []

        def finish() -> None:
            self.memory = torch.cat(seen)

        yield Collect("memory", lambda batch: seen.append(self.layer(batch.images.flatten(1))), finish)

    def forward(self, images: Tensor) -> Scores:
        """How far from the memory."""
        return Scores(torch.cdist(self.layer(images.flatten(1)), self.memory).amin(1), None)


def test_what_is_gathered_at_half_precision_is_kept_in_float32() -> None:
    """A fitted detector judges in float32; a memory in bfloat16 could not be compared with anything."""
    detector = KeepsFeatures()
    images = np.random.default_rng(0).integers(0, 255, (6, 4, 4, 3), np.uint8)
    run_phases(detector, TrainingImages([*images], Preprocess("RGB", (4, 4))), device="cpu", precision="bf16")
    assert detector.memory.shape == (6, 4) and detector.memory.dtype == torch.float32
    with torch.no_grad():
        assert torch.isfinite(detector(torch.rand(2, 3, 4, 4)).image).all()
