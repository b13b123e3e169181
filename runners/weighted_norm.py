"""Batch norm over examples of unequal weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["WeightedBatchNorm"]


class WeightedBatchNorm(nn.Module):
    """Batch norm that takes mean and variance with a weight for each example.

    With weights w that add up to 1, the mean of a channel is Σ_n w_n·mean(x_n) over its places, its variance
    Σ_n w_n·mean((x_n - mean)²), with eps under the root; the running variance follows the unbiased one, variance /
    (1 - Σ_n w_n²/places). With equal weights it is the batch norm of torch. It shares the tensors of the norm in whose
    place it stands, so the `state_dict` stays the same.

    Attributes:
        weights: `(N,)` of the next batch in train mode, adding up to 1; None for equal ones.
    """

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.eps, self.momentum = norm.eps, norm.momentum
        self.weight, self.bias = norm.weight, norm.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.weights: Tensor | None = None

    @classmethod
    def in_place_of(cls, module: nn.Module, path: str) -> WeightedBatchNorm:
        """Puts one in the place of the norm at `path` and returns it."""
        owner, _, name = path.rpartition(".")
        made = cls(module.get_submodule(path))
        made.train(module.get_submodule(path).training)
        setattr(module.get_submodule(owner), name, made)
        return made

    def forward(self, x: Tensor) -> Tensor:
        """`(N, C, …)` normalised."""
        mean, variance = self.running_mean, self.running_var
        if self.weights is None or not self.training:
            if self.training and self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
            return functional.batch_norm(
                x, mean, variance, self.weight, self.bias, self.training, self._momentum(), self.eps
            )
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        places = wide[0, 0].numel()
        weights = self.weights.to(wide.dtype).view(-1, *[1] * (wide.ndim - 1))
        axes = (0, *range(2, wide.ndim))
        mean = (wide * weights).sum(axes) / places
        shape = (1, -1, *[1] * (wide.ndim - 2))
        centred = wide - mean.view(shape)
        variance = (centred.square() * weights).sum(axes) / places
        if self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked.add_(1)
                share = self._momentum()
                free = 1 - weights.square().sum() / places
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
                self.running_var.lerp_((variance / free).to(self.running_var.dtype), share)
        y: Tensor = centred * (variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)

    def _momentum(self) -> float:
        """Share of the new statistics; with no momentum, that of a mean over all batches."""
        if self.momentum is not None:
            return float(self.momentum)
        return 1.0 if self.num_batches_tracked is None else 1.0 / max(1.0, self.num_batches_tracked.item())
