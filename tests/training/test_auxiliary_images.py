"""Auxiliary images: drawn anew for each image and epoch, part of what a checkpoint belongs to, refused where unused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import okng
from okng.cli.train import train
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, Train, Update
from okng.errors import OkngError
from okng.estimator import ImageOutlierDetector
from okng.inspection.reading.images import Preprocess
from okng.training.images.data import AuxiliaryImages, TrainingImages
from okng.training.loop.phases import run_phases

SHADES = range(0, 250, 10)


class Exposed(Detector):
    """Learns to score auxiliary images higher than OK ones; all it saw is in `batches`."""

    takes_auxiliary = True
    batches: ClassVar[list[Batch]] = []

    def __init__(self, epochs: int = 2):
        super().__init__()
        self.net = nn.Linear(3, 1)
        self.epochs = epochs
        self.arguments: dict[str, Any] = {}
        self.name = "exposed"

    def phases(self) -> Iterator[Phase]:
        yield Collect("look", self.batches.append, lambda: None)
        yield Train(
            "exposed", [Update(self.loss, torch.optim.SGD(self.net.parameters(), 0.1))], self.epochs, [self.net], 4
        )

    def loss(self, batch: Batch) -> Tensor:
        self.batches.append(batch)
        odd = torch.zeros(()) if batch.auxiliary is None else -self.net(batch.auxiliary.mean((2, 3))).tanh().mean()
        found: Tensor = self.net(batch.images.mean((2, 3))).tanh().mean() + odd
        return found

    def forward(self, images: Tensor) -> Scores:
        return Scores(self.net(images.mean((2, 3)))[:, 0])


def ok(count: int = 10, height: int = 8) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 255, (count, height, 8, 3), np.uint8))


def textures() -> list[np.ndarray]:
    """Of one shade each, and of another size than OK images."""
    return [np.full((5, 9, 3), shade, np.uint8) for shade in SHADES]


def run(
    sources: list[np.ndarray], size: Any = (8, 8), shades: list[np.ndarray] | None = None, **settings: Any
) -> Exposed:
    preprocess = Preprocess("RGB", size, 4)
    torch.manual_seed(0)
    detector = Exposed()
    detector.batches.clear()
    auxiliary = AuxiliaryImages(textures() if shades is None else shades, preprocess)
    run_phases(detector, TrainingImages(sources, preprocess), device="cpu", auxiliary=auxiliary, **settings)
    return detector


def shades_of(batches: list[Batch]) -> dict[tuple[int, int], int]:
    """By (pass, image)."""
    found: dict[tuple[int, int], int] = {}
    for batch in batches:
        assert batch.auxiliary is not None
        for row, index in enumerate(batch.index.tolist()):
            which = sum(image == index for _, image in found)
            found[which, index] = round(255 * float(batch.auxiliary[row].mean()))
    return found


def test_each_image_has_one_of_them_drawn_anew_in_its_shape() -> None:
    detector = run(ok())
    first = shades_of(detector.batches)
    assert len(first) == 3 * 10 and {*first.values()} <= {*SHADES}  # one pass and two epochs
    assert len({*first.values()}) > 10  # of 25; thirty draws give fewer with a chance below 1e-6
    assert all(
        batch.auxiliary is not None and batch.auxiliary.shape == batch.images.shape for batch in detector.batches
    )
    again = shades_of(run(ok(), seed=0).batches)
    assert again == first != shades_of(run(ok(), seed=1).batches)
    assert [first[0, i] for i in range(10)] != [first[1, i] for i in range(10)]


def test_batches_of_several_shapes_have_each_their_own() -> None:
    detector = run([*ok(4), *ok(4, height=16)], size=16)
    assert len({batch.images.shape for batch in detector.batches}) > 1
    for batch in detector.batches:
        assert batch.auxiliary is not None and batch.auxiliary.shape == batch.images.shape


@pytest.mark.parametrize("budget", [0, 3 * 64 + 1, 1 << 20])
def test_what_is_kept_changes_nothing(budget: int) -> None:
    images = AuxiliaryImages(textures(), Preprocess("RGB", (8, 8)), budget)
    drawn = [images.draw((8, 8), torch.Generator().manual_seed(i % 5)) for i in range(20)]
    assert all(torch.equal(drawn[i], drawn[i % 5]) for i in range(20))


def test_no_more_is_kept_than_the_budget_holds() -> None:
    """Three of 25 images of 192 bytes, and they are not read again."""
    images = AuxiliaryImages(textures(), Preprocess("RGB", (8, 8)), 3 * 192 + 1)
    generator = torch.Generator().manual_seed(0)
    drawn = [images.draw((8, 8), generator) for _ in range(200)]
    times = Counter(image.data_ptr() for image in drawn)  # all are held here, so that each read has its own
    assert sum(count > 1 for count in times.values()) == 3


def test_a_checkpoint_belongs_to_its_auxiliary_images(tmp_path: Path) -> None:
    run(ok(), checkpoint=tmp_path / "c")
    run(ok(), checkpoint=tmp_path / "c", resume=True)
    with pytest.raises(OkngError, match="other images"):
        run(ok(), shades=textures()[1:], checkpoint=tmp_path / "c", resume=True)


def test_a_fit_takes_a_folder_of_them_and_leaves_out_what_it_learns_from(tmp_path: Path) -> None:
    """Images that calibrate would have been learnt as odd."""
    for i, pixels in enumerate([*textures(), ok()[3]]):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "0.png").read_bytes()[:40])
    files = tmp_path / "ok"
    files.mkdir()
    for i, pixels in enumerate(ok()):
        Image.fromarray(pixels).save(files / f"{i}.png")
    Exposed.batches.clear()
    inspector = okng.fit(sorted(files.iterdir()), Exposed, auxiliary=sorted(tmp_path.glob("*.png")), holdout=0.3)
    assert inspector.manifest["provenance"]["auxiliary_images"] == len(SHADES)
    assert len(inspector.manifest["seen"]) == 10 + len(SHADES)
    assert all(batch.auxiliary is not None for batch in Exposed.batches)
    Exposed.batches.clear()
    assert okng.fit(ok(), Exposed).manifest["provenance"]["auxiliary_images"] == 0
    assert all(batch.auxiliary is None for batch in Exposed.batches)
    ImageOutlierDetector(Exposed, auxiliary=textures()).fit(np.stack(ok()))
    assert Exposed.batches[-1].auxiliary is not None


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(OkngError, match="autoencoder uses no auxiliary images; leave out auxiliary"):
        okng.fit(ok(), "autoencoder", auxiliary=textures())
    with pytest.raises(OkngError, match="no auxiliary image is left"):
        okng.fit(ok(), Exposed, auxiliary=ok()[:2])
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(OkngError, match="bring at least one auxiliary image"):
        okng.fit(ok(), Exposed, auxiliary=tmp_path)


def test_an_argument_of_this_name_is_the_detectors_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`oe_sdn` makes its auxiliary images itself; the argument says how, in Python, in tables and after -p."""
    small = {"width": 2, "code": 2, "epochs": 1, "teacher_epochs": 1, "holdout": 0.3, "device": "cpu"}
    fitted = okng.fit(ok(height=16), "oe_sdn", auxiliary="gaussian_blur", size=(16, 16), **small)
    assert fitted.manifest["detector"]["arguments"]["auxiliary"] == "gaussian_blur"
    with pytest.raises(OkngError, match="uses no auxiliary images"):
        okng.fit(ok(), "oe_sdn", auxiliary=tmp_path)
    asked: list[dict[str, Any]] = []

    def fit(*given: Any, **settings: Any) -> None:
        asked.append(settings)
        raise OkngError("enough")

    monkeypatch.setattr(okng, "fit", fit)
    for i, image in enumerate(ok()):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    with pytest.raises(OkngError, match="enough"):
        train(str(tmp_path), detector="oe_sdn", parameter=["auxiliary=shearing"], output=tmp_path / "m.okng")
    assert asked[0]["auxiliary"] == "shearing"
