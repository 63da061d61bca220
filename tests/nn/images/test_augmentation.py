"""Views: drawn within the ranges asked for, and carried out as torchvision does or as hand counting says."""

from __future__ import annotations

import colorsys

import pytest
import torch
import torchvision.transforms.functional as TF

from okng.nn.images.augmentation import DRAWN, Augmentation, blurred, hue_turned, view

NOTHING = dict.fromkeys(DRAWN, 0.0) | {"width": 1, "height": 1, "brightness": 1, "contrast": 1, "saturation": 1}


def numbers(count: int = 1, **drawn: float) -> torch.Tensor:
    """(count, len(DRAWN)): a view that changes nothing but what is said."""
    return torch.tensor([[{**NOTHING, **drawn}[name] for name in DRAWN]] * count)


def images(count: int = 3, channels: int = 3, height: int = 12, width: int = 16) -> torch.Tensor:
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(0))


def test_draws_are_within_what_is_asked() -> None:
    augmentation = Augmentation(crop=(0.2, 1), jitter=(0.4, 0.3, 0.2, 0.1), blurred=0.5)
    generator = torch.Generator().manual_seed(0)
    rows = torch.stack([augmentation.draw(generator) for _ in range(2000)])
    told = dict(zip(DRAWN, rows.T, strict=True))
    area, aspect = told["width"] * told["height"], told["width"] / told["height"]
    assert 0.19 < float(area.min()) < 0.23 and 0.95 < float(area.max()) <= 1
    assert 0.74 < float(aspect.min()) < 0.78 and 1.29 < float(aspect.max()) < 1.34
    for begins, extent in (("left", "width"), ("top", "height")):
        assert float(told[begins].min()) >= 0 and float((told[begins] + told[extent]).max()) <= 1 + 1e-6
    for name, amount in (("brightness", 0.4), ("contrast", 0.3), ("saturation", 0.2)):
        changed = told[name][told[name] != 1]
        assert 0.76 < len(changed) / 2000 < 0.84 and amount - 0.02 < float((changed - 1).abs().max()) <= amount + 1e-6
    assert 0.09 < float(told["hue"].abs().max()) <= 0.1
    assert 0.45 < float(told["mirror"].mean()) < 0.55 and 0.16 < float(told["grey"].mean()) < 0.24
    some = told["sigma"][told["sigma"] > 0]
    assert 0.45 < len(some) / 2000 < 0.55 and float(some.min()) >= 0.1 and 1.9 < float(some.max()) <= 2


def test_draws_are_the_generators() -> None:
    augmentation = Augmentation(crop=(0.1, 1))
    one, two = (augmentation.draw(torch.Generator().manual_seed(5)) for _ in range(2))
    torch.manual_seed(5)
    assert torch.equal(one, two) and torch.equal(one, augmentation.draw())


@pytest.mark.parametrize("channels", [1, 3])
def test_a_view_that_changes_nothing_is_the_image(channels: int) -> None:
    given = images(channels=channels)
    torch.testing.assert_close(view(given, numbers(3)), given, atol=1e-5, rtol=0)
    torch.testing.assert_close(view(given, numbers(3, mirror=1)), given.flip(3), atol=1e-5, rtol=0)


def test_a_crop_is_brought_to_the_images_size_and_is_of_the_mirrored_image() -> None:
    given = images(1, 1, 12, 12)
    half = {"left": 0.5, "top": 0.25, "width": 0.5, "height": 0.5}
    expected = TF.resized_crop(given, 3, 6, 6, 6, [12, 12], antialias=False)
    made = view(given, numbers(**half))
    torch.testing.assert_close(made[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1], atol=1e-5, rtol=0)
    torch.testing.assert_close(view(given, numbers(mirror=1, **half)), view(given.flip(3), numbers(**half)))


def test_colours_are_changed_as_torchvision_does() -> None:
    given = images()
    for name, expected in (
        ("brightness", TF.adjust_brightness(given, 1.3)),
        ("contrast", torch.stack([TF.adjust_contrast(one, 1.3) for one in given])),
        ("saturation", TF.adjust_saturation(given, 1.3)),
    ):
        torch.testing.assert_close(view(given, numbers(3, **{name: 1.3})), expected, atol=1e-3, rtol=0)
    grey = TF.rgb_to_grayscale(given, 3)
    torch.testing.assert_close(view(given, numbers(3, grey=1)), grey, atol=1e-3, rtol=0)


def test_hue_turns_and_nothing_else() -> None:
    given = images()
    made = hue_turned(given, torch.tensor([0.0, 0.1, -0.3]).view(3, 1, 1))
    torch.testing.assert_close(made[0], given[0], atol=1e-5, rtol=0)
    for by, before, after in ((0.1, given[1, :, 4, 5], made[1, :, 4, 5]), (-0.3, given[2, :, 0, 0], made[2, :, 0, 0])):
        hue, saturation, value = colorsys.rgb_to_hsv(*before.tolist())
        assert after.tolist() == pytest.approx(colorsys.hsv_to_rgb((hue + by) % 1, saturation, value), abs=1e-4)
    flat = torch.full((1, 3, 2, 2), 0.4)
    torch.testing.assert_close(hue_turned(flat, torch.full((1, 1, 1), 0.2)), flat)


def test_each_image_has_its_own_view() -> None:
    given = images(2)
    rows = torch.cat([numbers(mirror=1, brightness=0.7), numbers(width=0.5, height=0.6, hue=0.1, contrast=1.2)])
    together = view(given, rows)
    for i in range(2):
        torch.testing.assert_close(together[i : i + 1], view(given[i : i + 1], rows[i : i + 1]))


def test_a_blur_of_its_own_for_each_image() -> None:
    given = images(3, 3, 60, 60)
    made = blurred(given, torch.tensor([0.0, 1.0, 2.0]))
    torch.testing.assert_close(made[0], given[0])
    for i, sigma in ((1, 1.0), (2, 2.0)):
        expected = TF.gaussian_blur(given[i], [7, 7], [sigma, sigma])
        torch.testing.assert_close(made[i, :, 3:-3, 3:-3], expected[:, 3:-3, 3:-3], atol=1e-5, rtol=0)
    torch.testing.assert_close(
        blurred(torch.full((1, 1, 8, 8), 0.3), torch.tensor([2.0])), torch.full((1, 1, 8, 8), 0.3)
    )
