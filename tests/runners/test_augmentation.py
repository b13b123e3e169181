"""Whole-batch augmentation against a plain loop over the images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from runners.augmentation import Moves, augment, draw, move


def _reference(images: Tensor, moves: Moves, crop: int) -> Tensor:
    """One image at a time: mirror, pad, cut."""
    _, channels, height, width = images.shape
    out = torch.empty_like(images)
    for place, image in enumerate(images):
        image = torch.flip(image, [2]) if moves.flips[place] else image
        padded = torch.zeros(channels, height + 2 * crop, width + 2 * crop, dtype=images.dtype)
        padded[:, crop : crop + height, crop : crop + width] = image
        row, column = int(moves.rows[place]), int(moves.columns[place])
        out[place] = padded[:, row : row + height, column : column + width]
    return out


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 5, 9), (2, 1, 1)])
@pytest.mark.parametrize("crop", [0, 1, 4])
@pytest.mark.parametrize("flip", [False, True])
def test_equals_a_loop_over_the_images(shape: tuple[int, int, int], crop: int, flip: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(1, 256, (57, *shape), dtype=torch.uint8, generator=generator)
    moves = draw(57, flip, crop, generator)
    moved = move(images, moves, crop)
    assert moved.dtype == torch.uint8
    assert torch.equal(moved, _reference(images, moves, crop))


def test_each_image_has_its_own_draw_and_all_draws_occur() -> None:
    moves = draw(4000, True, 2, torch.Generator().manual_seed(0))
    assert 0.45 < moves.flips.float().mean() < 0.55
    for corners in (moves.rows, moves.columns):
        counts = torch.bincount(corners)
        assert len(counts) == 5 and counts.min() > 650 and counts.max() < 950
    pairs = torch.stack([moves.rows, moves.columns]).float()
    assert abs(torch.corrcoef(pairs)[0, 1]) < 0.05


def test_without_flip_and_crop_nothing_changes() -> None:
    images = torch.randint(256, (9, 3, 8, 8), dtype=torch.uint8)
    assert augment(images, False, 0, torch.Generator()) is images
    assert torch.equal(move(images, draw(9, False, 0, torch.Generator()), 0), images)


def test_the_generator_alone_decides() -> None:
    images = torch.arange(6 * 3 * 8 * 8).view(6, 3, 8, 8).to(torch.uint8)
    torch.manual_seed(1)
    first = augment(images, True, 2, torch.Generator().manual_seed(5))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(first, augment(images, True, 2, torch.Generator().manual_seed(5)))
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, augment(images, True, 2, torch.Generator().manual_seed(6)))


def test_flips_are_drawn_alike_with_and_without_crop() -> None:
    """So that a recipe's crop does not change which images are mirrored."""
    plain, cropped = (draw(100, True, crop, torch.Generator().manual_seed(1)) for crop in (0, 3))
    assert torch.equal(plain.flips, cropped.flips)
