"""Networks small enough for a test, and what a method must leave on them as it was."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Tiny(nn.Module):
    """Two stages named as a ResNet's, BatchNorm, dropout, a sum; any image size."""

    def __init__(self, channels, classes):
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.dropout = nn.Dropout(0.3)
        self.fc = nn.Linear(6, classes)

    def forward(self, images):
        first = self.layer1(images - 0.5)
        return self.fc(self.dropout(first + self.layer2(first)).mean((2, 3)))


class Residual(nn.Module):
    """Convolutions, BatchNorm, dropout and a sum in place, as in a ResNet; four classes.

    unused: with a convolution that no pass runs.
    """

    def __init__(self, activation=nn.ReLU, *, unused=False):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), activation())
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.last = nn.Sequential(activation(), nn.Dropout(0.5))
        self.head = nn.Linear(6, 4)
        if unused:
            self.unused = nn.Conv2d(3, 3, 1)

    def forward(self, images):
        features = self.first(images)
        out = self.second(features)
        out += features
        return self.head(self.last(out).mean((2, 3)))


class Linear(nn.Module):
    """One linear layer, `fc`, on the flattened image: the gradient is the weights of the class.

    weights: k c h w. bias: k numbers, or none at all.
    """

    def __init__(self, weights: Tensor, bias: Tensor | None = None):
        super().__init__()
        self.shape = weights.shape[1:]
        self.fc = nn.Linear(self.shape.numel(), len(weights), bias=bias is not None, dtype=weights.dtype)
        self.fc.weight.data = weights.flatten(1).clone()
        if bias is not None:
            self.fc.bias.data = bias.clone()

    def forward(self, images):
        return self.fc(images.flatten(1))

    def of(self, targets):
        """The weights of each image's class, n c h w."""
        return self.fc.weight.detach()[targets].unflatten(1, self.shape)


class WeightedSum(nn.Module):
    """Class 0 has the weighted sum of the pixels as its logit, class 1 has 0. weights: c h w."""

    def __init__(self, weights: Tensor):
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, images):
        logits = (images * self.weights).sum((1, 2, 3))
        return torch.stack([logits, torch.zeros_like(logits)], 1)


class Detached(nn.Module):
    """A network that gets its images without their gradient."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images.detach())


def linear_network(size: int = 8, *, seed: int = 0) -> Linear:
    """Weights and biases as torch draws them, in float64; images of three channels, four classes."""
    layer = seeded(lambda: nn.Linear(3 * size * size, 4, dtype=torch.float64), seed)
    return Linear(layer.weight.detach().unflatten(1, (3, size, size)), layer.bias.detach())


def one_convolution(
    channels: int = 6, classes: int = 4, *, activation: str = "ReLU", padding: int = 1, places: int = 2
) -> nn.Module:
    """A convolution, an activation of torch.nn, pooling to `places` x `places`, and a linear layer; any image size."""
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=padding),
        getattr(nn, activation)(),
        nn.AdaptiveAvgPool2d(places),
        nn.Flatten(),
        nn.Linear(channels * places**2, classes),
    )


def one_filter_each() -> nn.Module:
    """Two classes, each the mean of its own filter; images of three channels and any size."""
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def residual_network(activation=nn.ReLU, seed: int = 0, *, unused: bool = False) -> Residual:
    """`Residual`, drawn."""
    return drawn_network(lambda: Residual(activation, unused=unused), seed)


def drawn_network(build: Callable[[], nn.Module], seed: int = 0) -> Any:
    """A network in float64 and eval mode whose weights and BatchNorms are drawn from the seed."""
    return seeded(lambda: with_drawn_norms(build().double()), seed).eval()


def seeded(build: Callable[[], Any], seed: int = 0) -> Any:
    """What `build` makes with torch's generator at this seed; the caller's numbers go on as if nothing was drawn."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def with_drawn_norms(network: nn.Module) -> nn.Module:
    """The network with means and weights of its BatchNorms drawn: fresh ones change little."""
    for norm in network.modules():
        if isinstance(norm, NORMS):
            nn.init.uniform_(norm.running_mean, -0.2, 0.2)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
    return network


def scrambled(network: nn.Module) -> nn.Module:
    """The network in eval mode, its two-dimensional BatchNorms no longer as made: up to 0.2 is added to all numbers."""
    generator = torch.Generator().manual_seed(1)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                tensor.data += 0.2 * torch.rand(tensor.shape, generator=generator)
    return network.eval()


def swin() -> nn.Module:
    """A Swin of torchvision with two blocks: patches of 4 x 4, windows of 4 x 4 patches, three classes."""
    from torchvision.models import SwinTransformer

    return SwinTransformer([4, 4], 12, [2], [2], [4, 4], num_classes=3).eval()


def hooks(network: nn.Module) -> int:
    """How many hooks of any kind there are on the network and its parts."""
    return sum(len(kept) for each in _hooks(network) for kept in each.values() if isinstance(kept, Mapping))


def state_of(network: nn.Module, *tensors: Tensor) -> dict[str, Any]:
    """All that a method must leave as it was: of the network, of the tensors that it was given, and of autograd."""
    return {
        "attributes": [sorted(vars(module)) for module in network.modules()],
        "modes": [module.training for module in network.modules()],
        "hooks": _hooks(network),
        "flags": [parameter.requires_grad for parameter in network.parameters()],
        "grads": [_digest(parameter.grad) for parameter in network.parameters()],
        "values": [(value.data_ptr(), _digest(value)) for value in network.state_dict().values()],
        "tensors": [(_digest(each), each.requires_grad, _digest(each.grad)) for each in tensors],
        "autograd": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


def _hooks(network: nn.Module) -> list[dict[str, Any]]:
    return [
        {
            name: dict(kept) if isinstance(kept, Mapping) else kept
            for name, kept in vars(module).items()
            if "hook" in name
        }
        for module in network.modules()
    ]


def _digest(value: Tensor | None) -> str | None:
    """Equal for the same bits."""
    return None if value is None else hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
