"""Data parallelism: several processes train one network, each on its part of every batch.

The sum over the processes of what each computes is what one process would compute of the whole batch. The loss is
computed of the logits of the whole batch, BatchNorm uses the statistics of the whole batch, and gradients are summed.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from efface.execute.process_group import LostContactError, Member


@dataclass(frozen=True)
class Part:
    """A process's part of a batch.

    whole: places of the batch in the order of the epoch. sizes: images of each process. number: of this process.
    """

    whole: slice
    sizes: tuple[int, ...] = (1,)
    number: int = 0

    @property
    def size(self) -> int:
        """Images that this process computes, at least 1: a process without images computes one, with the weight 0."""
        return max(1, self.sizes[self.number])

    @property
    def places(self) -> range:
        """The places of this process's images in the order of the epoch."""
        before = sum(self.sizes[: self.number]) if self.sizes[self.number] else 0
        return range(self.whole.start + before, self.whole.start + before + self.size)

    @property
    def share(self) -> float:
        """This process's share of the batch's images."""
        return self.sizes[self.number] / sum(self.sizes)

    @property
    def is_whole(self) -> bool:
        """Whether this process has the whole batch."""
        return len(self.sizes) == 1

    def own(self, values: Tensor) -> Tensor:
        """Return the values of this process's images. values: of the images of the batch."""
        return values if self.is_whole else values[self.places.start - self.whole.start :][: self.size]

    def gathered(self, outputs: Tensor) -> Tensor:
        """Return the outputs of the whole batch. Their gradient flows into this process's own outputs alone."""
        return outputs if self.is_whole else _Gathered.apply(outputs, self)

    def sum_gradients(self, network: nn.Module) -> None:
        """Give each parameter the sum of its gradients in all processes."""
        if self.is_whole:
            return
        trained = [each for each in network.parameters() if each.requires_grad]
        for kind in dict.fromkeys(each.dtype for each in trained):
            _sum_gradients([each for each in trained if each.dtype == kind])

    def summed(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the sums of named numbers over all processes."""
        if self.is_whole or not values:
            return dict(values)
        return dict(zip(values, _sum(torch.stack([value.detach() for value in values.values()])), strict=True))

    @contextlib.contextmanager
    def whole_batch_norms(self) -> Iterator[None]:
        """Let every BatchNorm use the mean and variance of the whole batch, for passes inside the block."""
        if self.is_whole:
            yield
            return
        norm = functional.batch_norm
        functional.batch_norm = _over_processes(norm, counts=self.share > 0)
        try:
            yield
        finally:
            functional.batch_norm = norm


def parts_of(images: int, batch_size: int, member: Member | None) -> list[Part]:
    """Return this process's part of each batch of an epoch.

    A batch is cut into contiguous parts. Their sizes differ by one at most, and the first processes have the larger
    ones.
    """
    number, count = (0, 1) if member is None else (member.number, member.count)
    parts = []
    for start in range(0, images, batch_size):
        size = min(batch_size, images - start)
        each, more = divmod(size, count)
        sizes = tuple(each + (at < more) for at in range(count))
        parts.append(Part(slice(start, start + size), sizes, number))
    return parts


def places_of(parts: Sequence[Part]) -> Tensor:
    """Return the places of this process's images in the order of the epoch."""
    return torch.cat([torch.arange(part.places.start, part.places.stop) for part in parts])


def copy_first(tensors: Iterator[Tensor]) -> None:
    """Give these tensors in all processes the values of the first one."""
    with torch.no_grad(), _contact():
        for tensor in tensors:
            whole = tensor.contiguous()
            distributed.broadcast(whole, 0)
            if whole is not tensor:
                tensor.copy_(whole)


def from_first(value: Any) -> Any:
    """Return the value of the first process."""
    values = [value]
    with _contact():
        distributed.broadcast_object_list(values, 0, device=torch.device("cpu"))
    return values[0]


def _sum(tensor: Tensor) -> Tensor:
    with _contact():
        distributed.all_reduce(tensor)
    return tensor


def _sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Sum gradients of one type in one call. A parameter without a gradient in all processes keeps none."""
    gradients = [each.grad for each in parameters]
    has = parameters[0].new_tensor([gradient is not None for gradient in gradients])
    flat = [(torch.zeros_like(each) if each.grad is None else each.grad).flatten() for each in parameters]
    sums = _sum(torch.cat([*flat, has])).split([*map(len, flat), len(has)])
    for at, (each, total) in enumerate(zip(parameters, sums, strict=False)):
        if each.grad is not None:
            each.grad.copy_(total.view_as(each))
        elif sums[-1][at]:
            each.grad = total.view_as(each).clone()


class _Gathered(torch.autograd.Function):
    """The outputs of all processes, in their order."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, part: Part) -> Tensor:
        ctx.part = part
        padded = outputs.new_zeros(max(part.sizes), *outputs.shape[1:])
        padded[: len(outputs)] = outputs
        every = [torch.empty_like(padded) for _ in part.sizes]
        with _contact():
            distributed.all_gather(every, padded)
        return torch.cat([each[:size] for each, size in zip(every, part.sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        part: Part = ctx.part
        own = gradients[0].split(part.sizes)[part.number]
        return own if len(own) else torch.zeros_like(gradients[0][:1]), None


class _Summed(torch.autograd.Function):
    """The sum over all processes. Its gradient is the sum of theirs, at any order of derivative."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:  # noqa: ARG004
        return _sum(own.clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        return _Summed.apply(gradients[0])


def _over_processes(norm: Callable[..., Tensor], *, counts: bool) -> Callable[..., Tensor]:
    """Return a BatchNorm with the statistics of all processes. counts: whether this process's images count.

    torch's own one for several GPUs has no second derivative, which regularisers need, and none on processors.
    """

    def batch_norm(
        features: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,  # noqa: FBT001, FBT002  torch's signature
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return norm(features, running_mean, running_var, weight, bias, training, momentum, eps)
        across = [axis for axis in range(features.ndim) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(features.ndim)]
        wide = features.to(torch.promote_types(features.dtype, torch.float32))
        sums, own = wide.sum(across), wide.numel() // wide.shape[1]
        total = _Summed.apply(torch.cat([sums, sums.new_tensor([own])]) * counts)
        mean, count = total[:-1] / total[-1], total[-1]
        centred = wide - mean.view(shape)
        variance = _Summed.apply(centred.square().sum(across) * counts) / count
        with torch.no_grad():
            if running_mean is not None:
                running_mean.lerp_(mean.to(running_mean), momentum)
            if running_var is not None:
                running_var.lerp_((variance * count / (count - 1)).to(running_var), momentum)
        normed = centred * (variance + eps).rsqrt().view(shape)
        if weight is not None:
            normed = normed * weight.view(shape)
        if bias is not None:
            normed = normed + bias.view(shape)
        return normed.to(features.dtype)

    return batch_norm


@contextlib.contextmanager
def _contact() -> Iterator[None]:
    """Tell a lost process from other errors. LostContactError: it does not answer."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise LostContactError(f"fit.devices: another process does not answer ({str(error).split('. ')[0]})") from error
