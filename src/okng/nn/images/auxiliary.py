"""Auxiliary images: made of OK images, a batch at a time, to stand for what is not OK while a method learns.

Every function maps images (B, C, H, W) in [0, 1] to images of the same shape and range; draws are torch's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from okng.nn.images.blur import gaussian_blur

NOISE = 0.1  # standard deviation of Gaussian noise
STEP = 0.1  # of adversarial noise, at every pixel
BLUR = 1 / 20  # of the shorter side, the standard deviation of the Gaussian blur
SHEAR = 0.5  # of the height, how far top and bottom are pushed apart at most
RANK = 1 / 8  # of the shorter side, how many singular values stay


def adversarial_noise(images: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """One step of STEP at every pixel in the direction that raises `loss`, a scalar of the images.

    Goodfellow, Shlens, Szegedy, "Explaining and Harnessing Adversarial Examples", ICLR 2015.
    """
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(images), images)
    return (images + STEP * slope.sign()).detach().clamp(0, 1)


def gaussian_blurred(images: Tensor) -> Tensor:
    """Blurred by a Gaussian."""
    return gaussian_blur(images.flatten(0, 1), BLUR * min(images.shape[-2:])).view_as(images)


def gaussian_noise(images: Tensor) -> Tensor:
    """Gaussian noise added to every value."""
    return (images + NOISE * torch.randn_like(images)).clamp(0, 1)


def horizontal_flip(images: Tensor) -> Tensor:
    """Left and right exchanged."""
    return images.flip(3)


def rotated(images: Tensor) -> Tensor:
    """Turned by 90, 180 or 270 degrees, drawn for each image; quarter turns of oblong images are resized."""
    quarter, half = images.rot90(1, (2, 3)), images.rot90(2, (2, 3))  # (B, C, W, H), (B, C, H, W)
    if images.shape[2] != images.shape[3]:
        quarter = F.interpolate(quarter, images.shape[2:], mode="bilinear")  # (B, C, H, W)
    turns = torch.stack([quarter, half, quarter.rot90(2, (2, 3))])  # (3, B, C, H, W)
    rows = torch.arange(len(images), device=images.device)
    return turns[torch.randint(3, rows.shape, device=images.device), rows]  # (B, C, H, W)


def sheared(images: Tensor) -> Tensor:
    """Rows shifted in proportion to their distance from the middle one, by a factor drawn for each image.

    The image is continued by its outermost pixels.
    """
    matrices = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)  # (B, 2, 3)
    ratio = images.shape[2] / images.shape[3]
    matrices[:, 0, 1] = ratio * SHEAR * (2 * torch.rand(len(images), device=images.device) - 1)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)  # (B, H, W, 2)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def svd_blurred(images: Tensor) -> Tensor:
    """Each channel, as a matrix, without its smaller singular values.

    Choi, Chung, "Novelty Detection Via Blurring", ICLR 2020.
    """
    rank = max(1, round(RANK * min(images.shape[-2:])))
    u, s, v = torch.linalg.svd(images.float(), full_matrices=False)  # (B, C, H, k), (B, C, k), (B, C, k, W)
    blurred: Tensor = (u[..., :rank] * s[..., None, :rank]) @ v[..., :rank, :]  # (B, C, H, W)
    return blurred.clamp(0, 1)


def vertical_flip(images: Tensor) -> Tensor:
    """Top and bottom exchanged."""
    return images.flip(2)
