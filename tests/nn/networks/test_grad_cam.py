from __future__ import annotations

import torch
import torch.nn.functional as F

from okng.nn.networks.grad_cam import grad_cam


def test_equals_the_class_activation_map_under_a_mean_and_a_linear_layer() -> None:
    """There the gradient is the layer's weight at every place, divided by their number."""
    torch.manual_seed(0)
    features, linear = torch.randn(3, 5, 4, 6, requires_grad=True), torch.nn.Linear(5, 2)
    logits = linear(features.mean((2, 3)))  # (3, 2)
    expected = torch.einsum("c,bchw->bhw", linear.weight[1], features) / (4 * 6)
    torch.testing.assert_close(grad_cam(logits[:, 1], features), expected, rtol=1e-5, atol=1e-6)


def test_a_score_that_is_constant_has_no_map() -> None:
    features = torch.randn(2, 3, 4, 4, requires_grad=True)
    assert not grad_cam((features * 0).flatten(1).sum(1), features).any()


def test_double_backward_is_the_numerical_gradient() -> None:
    """A loss of the map: its gradient goes through the weights, and so to what comes after the features too."""
    torch.manual_seed(0)
    first = torch.randn(4, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    second = torch.randn(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    images = torch.randn(2, 3, 6, 5, dtype=torch.float64)

    def loss(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        features = torch.tanh(F.conv2d(images, first))
        score = torch.tanh(F.conv2d(features, second)).square().flatten(1).sum(1)
        return grad_cam(score, features, create_graph=True).sigmoid().mean()

    assert torch.autograd.gradcheck(loss, (first, second))
