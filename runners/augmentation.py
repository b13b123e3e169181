"""Random flips and crops of a whole batch at once, each image with its own draw.

An image is mirrored left to right with probability 1/2, and a window of its own size is cut from the image with a black
border around it (He et al., "Deep Residual Learning for Image Recognition", 2015, arXiv:1512.03385, section 4.2). What
is drawn (`Moves`) is apart from what it does (`move`), so that the latter is a function that can be compared with a
reference. Images are `(N, C, H, W)` of uint8: moved before they are normalised, they are a quarter of the bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy
import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Moves", "augment", "cut_out", "draw", "mixed", "move"]


@dataclass(frozen=True, slots=True)
class Moves:
    """What happens to each image of a batch.

    Attributes:
        flips: Whether it is mirrored, `(N,)` of bool.
        rows: Upper edge of its window in the image with the border, `(N,)`, from 0 to 2·crop.
        columns: Left edge.
    """

    flips: Tensor
    rows: Tensor
    columns: Tensor


def draw(count: int, flip: bool, crop: int, generator: torch.Generator) -> Moves:
    """Draws for `count` images; the same number of draws whatever `flip` and `crop` are.

    Args:
        count: Number of images, N.
        flip: Whether images are mirrored at all.
        crop: Width of the border in pixels.
        generator: Of the processor; the only source of randomness.
    """
    chances = torch.rand(3, count, generator=generator)
    corners = (chances[1:] * (2 * crop + 1)).long().clamp_(max=2 * crop)
    return Moves(flips=(chances[0] < 0.5) & flip, rows=corners[0], columns=corners[1])


def move(images: Tensor, moves: Moves, crop: int) -> Tensor:
    """Mirrors the images that `moves.flips` names, then cuts each one's window out of it with a border of `crop` zeros.

    Args:
        images: `(N, C, H, W)`, of any type.
        moves: One draw for each image, on the images' device.
        crop: Width of the border in pixels.

    Returns:
        `(N, C, H, W)` of the same type.
    """
    count, channels, height, width = images.shape
    padded = functional.pad(images, (crop, crop, crop, crop)) if crop else images
    rows = moves.rows[:, None] + torch.arange(height, device=images.device)
    columns = moves.columns[:, None] + torch.arange(width, device=images.device)
    wide = width + 2 * crop
    columns = torch.where(moves.flips[:, None], wide - 1 - columns, columns)
    places = (rows[:, :, None] * wide + columns[:, None, :]).view(count, 1, height * width)
    flat = padded.reshape(count, channels, -1)
    return flat.gather(2, places.expand(-1, channels, -1)).view(images.shape)


def augment(images: Tensor, flip: bool, crop: int, generator: torch.Generator) -> Tensor:
    """Random flips and crops of `images` `(N, C, H, W)`; the draws come from the processor's `generator`."""
    if not flip and not crop:
        return images
    moves = draw(len(images), flip, crop, generator)
    device = images.device
    moves = Moves(moves.flips.to(device), moves.rows.to(device), moves.columns.to(device))
    return move(images, moves, crop)


def cut_out(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Blanks a square of `side` pixels at a random place of each image, in place.

    The centre is anywhere in the image, so that the square may stick out of it (T. DeVries, G.W. Taylor, "Improved
    Regularization of Convolutional Neural Networks with Cutout", 2017, arXiv:1708.04552).

    Args:
        images: Normalised, `(N, C, H, W)`: 0 is the mean.
        side: Of the square.
        generator: Of the processor.
    """
    count, _, height, width = images.shape
    chances = torch.rand(2, count, generator=generator)
    corners = (chances * torch.tensor([[height], [width]])).long().sub_(side // 2).to(images.device)
    rows = torch.arange(height, device=images.device) - corners[0][:, None]
    columns = torch.arange(width, device=images.device) - corners[1][:, None]
    inside = ((rows >= 0) & (rows < side))[:, None, :, None] & ((columns >= 0) & (columns < side))[:, None, None, :]
    return images.masked_fill_(inside, 0)


def mixed(images: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Each image with a share of another one of the batch; one share, drawn from Beta(α, α), for all.

    H. Zhang, M. Cisse, Y.N. Dauphin, D. Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", 2017, arXiv:1710.09412.

    Returns:
        The images, for each the number of the other one, and the share that is its own.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    share = float(numpy.random.Generator(numpy.random.PCG64(seed)).beta(alpha, alpha))
    others = torch.randperm(len(images), generator=generator).to(images.device)
    return torch.lerp(images[others], images, share), others, share
