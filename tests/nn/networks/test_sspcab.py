from __future__ import annotations

import pytest
import torch

from okng.detectors.base import Batch
from okng.detectors.catalogue import create
from okng.nn.networks.sspcab import SSPCAB, prediction_of


def answering(kernel: int, dilation: int) -> set[tuple[int, int]]:
    """Where, seen from a place of the input that changes, what is predicted changes; weights and input are positive."""
    torch.manual_seed(0)
    block = SSPCAB(4, kernel, dilation)
    for corner in block.corners:
        torch.nn.init.uniform_(corner.weight, 0.1, 1)
    features = torch.rand(1, 4, 19, 21)
    changed = features.clone()
    changed[0, 2, 9, 10] += 1
    with torch.no_grad():
        moved = (block.predicted(changed) != block.predicted(features)).any(1)[0]  # (19, 21)
    return {(int(y) - 9, int(x) - 10) for y, x in moved.nonzero()}


def test_it_answers_at_exactly_the_four_corners_and_is_blind_to_the_middle() -> None:
    assert answering(1, 1) == {(-2, -2), (-2, 2), (2, -2), (2, 2)}
    assert answering(1, 3) == {(-4, -4), (-4, 4), (4, -4), (4, 4)}


def test_larger_kernels_begin_beyond_the_mask() -> None:
    """Of 2k' + 2d + 1 places along a side the outer k' are seen."""
    assert answering(2, 1) == {(y, x) for y in (-3, -2, 2, 3) for x in (-3, -2, 2, 3)}


@pytest.mark.parametrize("size", [(1, 1), (3, 8), (16, 16)])
def test_it_keeps_shapes_and_has_gradients_for_all_weights(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    block = SSPCAB(64)
    features = torch.rand(2, 64, *size)
    given = block(features)
    assert given.shape == features.shape and (given >= 0).all() and (given <= block.predicted(features)).all()
    if min(size) > 2:
        (given - features).square().mean().backward()
        assert all(weight.grad is not None and weight.grad.any() for weight in block.parameters())


def test_an_image_does_not_depend_on_the_others_of_its_batch() -> None:
    torch.manual_seed(0)
    block, features = SSPCAB(8), torch.rand(3, 8, 6, 6)
    torch.testing.assert_close(block(features)[1:2], block(features[1:2]))


@pytest.mark.parametrize("name", ["autoencoder", "denoising_autoencoder", "ssim_autoencoder", "vae"])
def test_autoencoders_have_it_before_their_code_and_add_its_loss(name: str) -> None:
    """Without it nothing changes: their weights are drawn as if it were not there."""
    built = {}
    for block in (False, True):
        torch.manual_seed(0)
        built[block] = create(name, image_size=(32, 32), channels=3, width=4, code=3, sspcab=block)
    plain, detector = built[False], built[True]
    known = {key: tensor for key, tensor in detector.state_dict().items() if key.startswith("decoder")}
    assert known and all(torch.equal(tensor, plain.state_dict()[key]) for key, tensor in known.items())
    assert plain.encoder[0].weight.equal(detector.encoder[0].weight)
    place = next(i for i, layer in enumerate(detector.encoder) if isinstance(layer, SSPCAB))
    images = torch.rand(2, 3, 32, 32)
    features = detector.encoder[:place](images)  # (2, C, h, w), the last before the code
    assert features.ndim == 4 and detector.encoder[place + 1 :](features).flatten(1).shape[1] in (3, 6)
    expected = 0.1 * (detector.encoder[place](features) - features).square().mean()
    torch.testing.assert_close(prediction_of(detector.encoder, images)["prediction"], expected)
    batch = Batch(images, torch.arange(2))
    losses = detector.loss(batch)
    losses["prediction"].backward()
    assert all(p.grad is not None for p in detector.encoder[: place + 1].parameters())
    assert losses.keys() - plain.loss(batch).keys() == {"prediction"}
    changed = detector.eval()(images).image
    with torch.no_grad():
        detector.encoder[place].corners[0].weight.add_(1.0)
        assert not torch.allclose(detector(images).image, changed)
