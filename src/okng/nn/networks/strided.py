"""Strided convolutional encoders and decoders around a small code."""

from __future__ import annotations

from torch import nn

SLOPE = 0.2  # of the leaky rectifier below zero
COARSEST = 4  # the shorter side is halved until it is at most this


def strided_coders(
    image_size: tuple[int, int], channels: int, code: int, width: int, per_code: int = 1, per_value: int = 1
) -> tuple[nn.Sequential, nn.Sequential]:
    """An encoder (B, C, H, W) → (B, code) and a decoder (B, code) → (B, C, H, W) that ends linearly.

    One strided 3×3 layer per halving, down to a shorter side of at most 4; channels start at `width` and double as the
    sides halve. `per_code` and `per_value`: how many numbers stand for each one of the code that the encoder gives and
    of the image that the decoder gives, 2 for a mean and a log-variance. Weights start by `start_awake`, without which
    deep networks stay at the mean image for many epochs. No normalisation and no shortcut around the code.
    """
    down: list[nn.Module] = []
    up: list[nn.Module] = []
    (h, w), inner, outer = image_size, channels, width
    while min(h, w) > COARSEST:
        # Halving rounds odd sides up; on the way back, only even sides need the extra row or column.
        extra = (1 - h % 2, 1 - w % 2)
        down += [nn.Conv2d(inner, outer, 3, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        made = inner if up else per_value * channels
        up = [nn.LeakyReLU(SLOPE), nn.ConvTranspose2d(outer, made, 3, stride=2, padding=1, output_padding=extra), *up]
        h, w, inner, outer = (h + 1) // 2, (w + 1) // 2, outer, 2 * outer
    values, grid = inner * h * w, (inner, h, w)
    encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(values, per_code * code))
    decoder = nn.Sequential(nn.Linear(code, values), nn.Unflatten(1, grid), *up)
    start_awake(encoder, decoder)
    return encoder, decoder


def start_awake(*networks: nn.Module) -> None:
    """Draw the weights of all convolutions at He's scale for leaky rectifiers; biases stay as they are.

    Of transposed ones the kernel counts as if a place of the output met all of it. At stride 2 it meets a quarter, so
    that copies start flat; squared errors don't mind.
    """
    for network in networks:
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=SLOPE)
            elif isinstance(layer, nn.ConvTranspose2d):  # its weight is (in, out, k, k): the fans are swapped
                nn.init.kaiming_normal_(layer.weight, a=SLOPE, mode="fan_out")
