"""What tells Uninformed Students from a toy: dense descriptors of patches, normalised, and students that disagree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.detectors.scenes import discs
from torch import Tensor

from okng.detectors.base import Batch, Collect, Train
from okng.detectors.catalogue import create
from okng.detectors.distillation.uninformed_students import PatchNetwork, UninformedStudents, compactness, cut
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases

SMALL = {"width": 4, "descriptor": 4, "students": 2}


def built(**arguments: object) -> UninformedStudents:
    torch.manual_seed(0)
    detector = create("uninformed_students", **{**SMALL, "weights": "none", **arguments})
    assert isinstance(detector, UninformedStudents)
    return detector.eval()


def images(count: int = 2, side: int = 32) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("field", [17, 33, 65])
def test_the_dense_network_is_the_patch_network_at_every_offset(field: int) -> None:
    detector = built(receptive_fields=(field,))
    network = detector.teachers[0]
    assert isinstance(network, PatchNetwork)
    shown = images(1, 12)
    normalised = (shown - detector.backbone.mean) / detector.backbone.std
    around = F.pad(normalised, [field // 2] * 4, mode="replicate")
    with torch.no_grad():
        dense = network(detector.padded(0, shown))
        assert dense.shape == (1, 4, 12, 12)
        for i in range(12):
            for j in range(12):
                patch = around[:, :, i : i + field, j : j + field]  # its middle is the pixel (i, j)
                torch.testing.assert_close(network.spaced(patch)[:, :, 0, 0], dense[:, :, i, j], rtol=1e-4, atol=1e-5)


def test_the_spaced_network_is_the_dense_one_at_a_grid() -> None:
    """Of whatever size the image is, and wherever the grid begins."""
    for field, spacing in ((17, 1), (33, 4), (65, 8)):
        network = built(receptive_fields=(field,)).teachers[0]
        assert isinstance(network, PatchNetwork) and network.spacing == spacing
        padded = torch.rand(1, 3, network.reach + 12, network.reach + 9)
        with torch.no_grad():
            dense = network(padded)
            for down, right in ((0, 0), (3, 2)):
                found = network.spaced(padded[:, :, down:, right:])
                torch.testing.assert_close(found, dense[:, :, down::spacing, right::spacing], rtol=1e-4, atol=1e-5)


def test_students_that_are_alike_do_not_disagree_and_those_like_the_teacher_do_not_err() -> None:
    detector = built()
    padded = detector.padded(0, images())
    with torch.no_grad():
        error, variance = detector.compare(0, padded)
        assert error.shape == variance.shape == (2, 32, 32) and float(variance.min()) > 0
        first, second = detector.students[0]  # type: ignore[misc]
        second.load_state_dict(first.state_dict())
        assert float(detector.compare(0, padded)[1].max()) < 1e-10
        for student in (first, second):
            student.load_state_dict(detector.teachers[0].state_dict())
        assert float(detector.compare(0, padded)[0].max()) < 1e-10  # the teacher's mean is 0 and its deviation 1, yet


def test_error_and_variance_are_those_of_the_paper() -> None:
    detector = built(students=3)
    detector.mean.uniform_(-0.5, 0.5)
    detector.deviation.uniform_(0.5, 2)
    padded = detector.padded(0, images())
    with torch.no_grad():
        error, variance = detector.compare(0, padded)
        wanted = (detector.teachers[0](padded) - detector.mean[0].view(4, 1, 1)) / detector.deviation[0].view(4, 1, 1)
        found = torch.stack([student(padded) for student in detector.students[0]])  # type: ignore[union-attr]
    torch.testing.assert_close(error, (found.mean(0) - wanted).square().sum(1))
    spread = found.square().sum(2).mean(0) - found.mean(0).square().sum(1)
    torch.testing.assert_close(variance, spread, rtol=1e-3, atol=1e-5)


def test_the_map_averages_receptive_fields_in_deviations_from_what_is_usual() -> None:
    detector = built(receptive_fields=(17, 33))
    detector.usual.copy_(torch.rand(2, 2, 2) + 0.5)
    expected = torch.zeros(2, 32, 32)
    with torch.no_grad():
        for i in (0, 1):
            parts = detector.compare(i, detector.padded(i, images()))
            for k, part in enumerate(parts):
                expected += (part - detector.usual[i, 0, k]) / detector.usual[i, 1, k] / 2
        scores = detector(images())
    assert scores.map is not None
    torch.testing.assert_close(scores.map, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(scores.image, scores.map.amax((1, 2)))


def test_patches_are_squares_of_the_papers_sizes_from_all_over_the_image() -> None:
    """Of an image whose values are its coordinates."""
    h, w = 64, 128
    down, right = torch.meshgrid(torch.arange(float(h)), torch.arange(float(w)), indexing="ij")
    image = torch.stack([down, right, torch.zeros(h, w)])
    generator = torch.Generator().manual_seed(0)
    patches = torch.cat([cut(image, generator, 17) for _ in range(100)])  # (800, 3, 17, 17)
    assert patches.shape == (800, 3, 17, 17)
    per_pixel = patches[:, 0, 9, 8] - patches[:, 0, 8, 8]  # how far two rows of a patch lie apart
    torch.testing.assert_close(per_pixel, patches[:, 1, 8, 9] - patches[:, 1, 8, 8], rtol=1e-3, atol=1e-3)
    sides = 17 * per_pixel
    assert 64 / 16 - 0.01 <= sides.min() < 4.3 and 14 < sides.max() <= 64 / 4 + 0.01
    assert patches[:, 0].min() < 3 and patches[:, 0].max() > h - 4
    assert patches[:, 1].min() < 3 and patches[:, 1].max() > w - 4
    torch.testing.assert_close(patches[:8], cut(image, torch.Generator().manual_seed(0), 17))


def test_channels_that_say_the_same_are_not_compact() -> None:
    described = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 3.0, -2.0])
    torch.testing.assert_close(compactness(described), torch.tensor(2 * (1.0 - 1.0 - 1.0)))
    torch.testing.assert_close(compactness(described[:, :2] + 5), torch.tensor(2.0))
    alone = torch.randn(5000, 3, generator=torch.Generator().manual_seed(1))
    assert abs(float(compactness(alone))) < 0.2


def test_the_teacher_learns_from_auxiliary_images_where_there_are_any() -> None:
    detector = built()
    views = torch.zeros(2, 8, 3, 33, 33)
    without = detector.teaching(0, Batch(images(), torch.arange(2), views=(views,)))
    given = Batch(images(), torch.arange(2), views=(views,), auxiliary=images(2, 64))
    torch.manual_seed(0)
    with_them = detector.teaching(0, given)
    torch.manual_seed(0)
    patches = torch.stack([cut(image, side=33) for image in images(2, 64)])
    expected = detector.teaching(0, Batch(images(), torch.arange(2), views=(patches,)))
    torch.testing.assert_close(with_them, expected)
    assert not torch.isclose(without["distillation"], with_them["distillation"])


def test_a_fit_knows_ok_images_and_leaves_each_part_where_it_was_trained() -> None:
    detector = built(width=8, teacher_epochs=10, epochs=15, learning_rate=2e-3, teacher_learning_rate=2e-3)
    source = TrainingImages(list(discs(8)), Preprocess("RGB", (64, 64), detector.multiple))
    ok = torch.stack([source[i] for i in range(8)]).float() / 255
    phases = list(detector.phases())
    assert [type(phase) for phase in phases] == [Train, Collect, Train, Collect]
    run_phases(detector, source, device="cpu")
    teacher = detector.teachers[0]
    assert isinstance(teacher, PatchNetwork)
    with torch.no_grad():
        described = detector.unusual(0, teacher.spaced(detector.padded(0, ok)))
        scores = detector(ok)
        noise = detector(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(described.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-3)
    torch.testing.assert_close(described.std((0, 2, 3), correction=0), torch.ones(4), rtol=1e-3, atol=0)
    assert scores.map is not None and noise.map is not None
    assert abs(float(scores.map.mean())) < 0.1  # of error and variance, each in deviations from its mean
    assert noise.map.mean() > 1 and noise.image.min() > scores.image.max()


@pytest.mark.parametrize("fields", [(), (16,), (17, 18)])
def test_receptive_fields_that_there_are_not(fields: tuple[int, ...]) -> None:
    with pytest.raises(OkngError, match="uninformed_students: receptive_fields is one or more of 17, 33 and 65"):
        built(receptive_fields=fields)


def test_the_papers_networks() -> None:
    detector = built(receptive_fields=(17, 33, 65), width=128, descriptor=128, students=1)
    assert [n.reach for n in detector.teachers] == [17, 32, 60]
    layers = [[(c.kernel_size[0], c.out_channels) for c in n.convolutions] for n in detector.teachers]  # type: ignore
    assert layers[0] == [(6, 128), (5, 256), (5, 256), (4, 128)]
    assert layers[1] == [(5, 128), (5, 256), (2, 256), (4, 128)]
    for phase, rate in zip(list(detector.phases())[:4:2], (2e-4, 1e-4), strict=True):
        assert isinstance(phase, Train)
        defaults = phase.updates[0].optimizer.defaults
        assert (defaults["lr"], defaults["weight_decay"]) == (rate, 1e-5)
    np.testing.assert_array_equal([n.spacing for n in detector.teachers], [1, 4, 8])
