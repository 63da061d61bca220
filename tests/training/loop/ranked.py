"""What `test_ranks` runs as two processes, and as one: the fits to compare. Arguments: what to do, and the folder."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, Train, Update
from okng.detectors.catalogue import create
from okng.detectors.synthetic_anomalies.dsr import Codebook
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.training.images.data import TrainingImages
from okng.training.loop.launch import GONE
from okng.training.loop.phases import run_phases
from okng.training.loop.ranks import Gone

RANK, COUNT = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


class Stop(Exception):
    """Stands for a kill."""


def images(count: int, side: int, sizes: tuple[int, ...] = ()) -> TrainingImages:
    """`count` images, of `sizes` in turn; batches of them are not full, and some have one image."""
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 255, (sizes[i % len(sizes)] if sizes else side, side, 3), np.uint8) for i in range(count)]
    return TrainingImages(pixels, Preprocess("RGB", side if sizes else (side, side), 4))


class Autoencoder(Detector):
    """With batch normalisation, a phase that collects, one that validates, views, and an average of weights."""

    def __init__(self, stop_at: int = 10**6, noise: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.name, self.arguments = "autoencoder of the test", {}
        self.net = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 12, 1)
        )
        self.unused = nn.Linear(1, 1)
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("average", torch.zeros(4))
        self.left, self.noise = stop_at, noise
        self.drawn: list[float] = []

    def phases(self) -> Iterator[Phase]:
        seen: list[Tensor] = []
        yield Collect("mean", lambda batch: seen.append(batch.images.mean((2, 3))), lambda: self.finish(seen))
        optimizer = torch.optim.Adam([*self.net.parameters(), *self.unused.parameters()], 0.01)
        yield Train(
            "net", [Update(self.loss, optimizer, clip=0.5)], 3, [self.net], 4,
            after_step=lambda: self.average.lerp_(self.net[1].weight, 0.1), validate=self.loss,
            augment=lambda image, generator: image + 0.1 * torch.rand(image.shape, generator=generator),
        )  # fmt: skip

    def finish(self, seen: list[Tensor]) -> None:
        self.mean.copy_(torch.cat(seen).mean(0))

    def loss(self, batch: Batch) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise Stop
        if self.noise:
            self.drawn.append(float(torch.rand(())))
        made = nn.functional.pixel_shuffle(self.net(batch.views[0]), 2)  # (B, 3, h, w)
        return (made - batch.images + self.mean[:, None, None]).square().mean()

    def forward(self, images: Tensor) -> Scores:
        return Scores(self.net(images).mean((1, 2, 3)))


class Following(Detector):
    """A codebook that follows the images' pixels, after steps that teach nothing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.name, self.arguments = "codebook of the test", {}
        self.book, self.weight = Codebook(8, 3), nn.Parameter(torch.zeros(()))
        self.book.rows.uniform_(0, 1)
        self.book.chosen.fill_(2.0)  # none begins anew
        self.book.sums.copy_(2 * self.book.rows)
        self.met = torch.zeros(0)

    def phases(self) -> Iterator[Phase]:
        optimizer = torch.optim.SGD([self.weight], 0.0)
        yield Train(
            "codebook", [Update(self.loss, optimizer)], 2, [self.book], 4, after_step=lambda: self.book.follow(self.met)
        )

    def loss(self, batch: Batch) -> Tensor:
        self.met = batch.images
        return (self.weight + self.book.nearest(batch.images) - batch.images).square().mean()

    def forward(self, images: Tensor) -> Scores:
        return Scores(self.book.nearest(images).mean((1, 2, 3)))


class Diverging(Autoencoder):
    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) * (float("nan") if RANK == 1 else 1)


def fitted(name: str, folder: Path, detector: Detector, given: TrainingImages, **settings: Any) -> None:
    history = run_phases(detector, given, device="cpu", devices=COUNT, **settings)
    save_file({k: v.contiguous() for k, v in detector.state_dict().items()}, folder / f"{name}-{COUNT}-{RANK}.st")
    drawn = getattr(detector, "drawn", [])
    (folder / f"{name}-{COUNT}-{RANK}.json").write_text(json.dumps([history, drawn]))


def compared(folder: Path) -> None:
    fitted("autoencoder", folder, Autoencoder(), images(14, 8))
    fitted("codebook", folder, Following(), images(13, 8))
    fitted("sizes", folder, Autoencoder(), images(13, 8, (8, 12, 8, 8)))
    torch.manual_seed(0)
    gan = create("ganomaly", width=4, code=4, epochs=2, batch_size=6, image_size=(16, 16), channels=3)
    fitted("ganomaly", folder, gan, images(9, 16))
    if COUNT > 1:
        try:
            run_phases(Diverging(), images(14, 8), device="cpu", devices=COUNT)
        except OkngError as error:
            (folder / f"diverged-{RANK}").write_text(str(error))
        try:
            run_phases(Autoencoder(), images(14, 8), device="cpu", devices=COUNT, seed=RANK)
        except OkngError as error:
            (folder / f"unlike-{RANK}").write_text(str(error))
        fitted("noise", folder, Autoencoder(noise=True), images(14, 8))
        path = folder / "stopped"
        try:
            run_phases(Autoencoder(stop_at=6), images(14, 8), device="cpu", devices=COUNT, checkpoint=path)
        except Stop:
            fitted("resumed", folder, Autoencoder(), images(14, 8), checkpoint=path, resume=True)


def killed() -> None:
    class Killed(Autoencoder):
        def loss(self, batch: Batch) -> Tensor:
            if RANK == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().loss(batch)

    try:
        run_phases(Killed(), images(14, 8), device="cpu", devices=COUNT)
    except Gone:
        sys.exit(GONE)


if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2])
    compared(where) if what == "compared" else killed()
