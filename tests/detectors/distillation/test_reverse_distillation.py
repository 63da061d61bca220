"""What tells Reverse Distillation from a toy: the student sees the embedding alone, and restores every level."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.detectors.scenes import discs
from torch import Tensor

from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.distillation.reverse_distillation import ReverseDistillation
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.nn.networks.reverse import halvings_between
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases


def built(**arguments: object) -> ReverseDistillation:
    torch.manual_seed(0)
    detector = create("reverse_distillation", **arguments)
    assert isinstance(detector, ReverseDistillation)
    return detector.eval()


def images(count: int = 2, side: int = 64) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("backbone", "strides"),
    [("efficientnet_lite0", (4, 8, 16)), ("efficientnet_lite0", (2, 16)), ("resnet18", (8, 32)), ("resnet18", (16,))],
)
def test_what_is_restored_has_the_teachers_shapes(backbone: str, strides: tuple[int, ...]) -> None:
    detector = built(backbone=backbone, strides=strides, weights="none")
    with torch.no_grad():
        taught = detector.teacher(images())
        embedding = detector.embedding(taught)
        restored = detector.restore(taught)
    side = 64 // detector.multiple
    assert embedding.shape == (2, 2 * taught[-1].shape[1], side, side)
    assert [r.shape for r in restored] == [t.shape for t in taught]


def test_the_decoder_is_handed_the_embedding_alone() -> None:
    """With the embedding of another image it restores the other image, whatever the image itself is."""
    detector = built(weights="none")
    one, other = images().split(1)
    with torch.no_grad():
        wanted = detector.restore(detector.teacher(other))
        embedding = detector.embedding(detector.teacher(other))
        detector.embedding.register_forward_hook(lambda module, given, output: embedding)
        for found, expected in zip(detector.restore(detector.teacher(one)), wanted, strict=True):
            torch.testing.assert_close(found, expected)


def test_the_decoder_ends_as_its_teacher_does() -> None:
    """ResNet's levels end in a ReLU, EfficientNet-Lite's do not."""
    for backbone, rectified in (("resnet18", True), ("efficientnet_lite0", False)):
        detector = built(backbone=backbone, weights="none")
        with torch.no_grad():
            lowest = [float(r.min()) for r in detector.restore(detector.teacher(images()))]
        assert all((low >= 0) == rectified for low in lowest), backbone


def test_the_map_sums_the_levels_cosines() -> None:
    detector = built(sigma=1e-3)  # no blur
    with torch.no_grad():
        taught = detector.teacher(images())
        restored = detector.restore(taught)
        scores = detector(images())
    expected = torch.zeros(2, 1, 64, 64)
    for t, r in zip(taught, restored, strict=True):
        level = 1 - (t * r).sum(1, keepdim=True) / (t.norm(dim=1, keepdim=True) * r.norm(dim=1, keepdim=True))
        expected += F.interpolate(level, (64, 64), mode="bilinear", align_corners=True)
    assert scores.map is not None
    torch.testing.assert_close(scores.map, expected[:, 0], rtol=1e-3, atol=1e-5)
    assert torch.equal(scores.image, scores.map.amax((1, 2)))


def test_the_loss_is_a_cosine_of_whole_maps() -> None:
    """The length of a position's vector counts in it: one of the flattened map, not the mean over positions."""
    detector = built()
    taught = [torch.tensor([[[[3.0, 1.0]]]]), torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1)]  # (1, 1, 1, 2)
    restored = [torch.tensor([[[[1.0, -1.0]]]]), torch.ones(1, 1, 1, 1), -torch.ones(1, 1, 1, 1)]
    detector.restore = lambda pyramid: restored  # type: ignore[method-assign]
    losses = detector.loss(Batch(images(1), torch.arange(1), tuple(taught)))
    assert list(losses) == ["stride 4", "stride 8", "stride 16"]
    expected = [1 - 2 / (10 * 2) ** 0.5, 0.0, 2.0]  # by positions the first would be 1
    torch.testing.assert_close(torch.stack(list(losses.values())), torch.tensor(expected))


def test_training_closes_in_on_ok_images_and_leaves_defects_odd() -> None:
    detector = built(epochs=25, batch_size=8, sigma=2.0)
    pixels = discs(8)
    source = TrainingImages(list(pixels), Preprocess("RGB", (64, 64), detector.multiple))
    ok = torch.stack([source[i] for i in range(8)]).float() / 255
    spoilt = ok.clone()
    spoilt[:, :, 20:36, 24:36] = torch.tensor([0.1, 0.1, 0.9]).view(1, 3, 1, 1)
    teacher = {name: tensor.clone() for name, tensor in detector.teacher.state_dict().items()}
    with torch.no_grad():
        before = detector(ok).image
    run_phases(detector, source, device="cpu")
    with torch.no_grad():
        after, odd = detector(ok).image, detector(spoilt).image
    assert after.mean() < 0.7 * before.mean()
    assert odd.min() > after.max()
    for name, tensor in detector.teacher.state_dict().items():
        assert torch.equal(tensor, teacher[name]), name


def test_paper_size() -> None:
    """A large ResNet at 4, 8 and 16: the authors' depths and widths, and their optimiser. No gradient for it."""
    detector = built(backbone="resnet50", weights="none")
    depths = [[len(stage) // 2 + 1, stage[-1].body[-1].num_features] for stage in detector.decoder]  # type: ignore
    assert depths == [[3, 1024], [4, 512], [6, 256]]
    assert len(list(detector.embedding.embed.children())) == 5  # 3 blocks, 2 ReLU between
    convolutions = [m for m in detector.embedding.shrink.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [(256, 512), (512, 1024), (512, 1024)]
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and (phase.epochs, phase.batch_size) == (200, 16)
    (update,) = phase.updates
    assert update.optimizer.defaults["lr"] == 0.005 and update.optimizer.defaults["betas"] == (0.5, 0.999)
    with torch.no_grad():
        taught = tuple(detector.teacher(images()))
    losses = update.loss(Batch(images(), torch.arange(2), taught))
    assert isinstance(losses, dict)
    sum(losses.values(), torch.zeros(())).backward()
    assert all(p.grad is None for p in detector.teacher.parameters())
    assert all(p.grad is not None for module in phase.trains for p in module.parameters())


def test_strides_that_halvings_do_not_join() -> None:
    assert [halvings_between(4, coarse) for coarse in (4, 8, 16)] == [0, 1, 2]
    with pytest.raises(OkngError, match=r"each of strides .* not 4, 12"):
        halvings_between(4, 12)
