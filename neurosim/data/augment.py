"""Random crops and mirror images of a batch, drawn from a seed and made on the batch's device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from neurosim.data.dataset import DataError
from neurosim.errors import unknown

#: What the pixels of the padding hold: black, or the image's nearest pixel.
PADDINGS = ("black", "edge")


@dataclass(frozen=True)
class Augment:
    """Pads each image on all sides, cuts a window of its size at a random place, and mirrors it with probability one half.

    Which window, and which are mirrored, is drawn by NumPy from the seed of the call, and no state is kept: the same
    seed gives the same images on every device, and a run that is resumed goes on as if it had not stopped.

    Attributes
    ----------
    shape
        Shape of one image, ``(height, width)`` or ``(channels, height, width)``.
    crop_padding
        Pixels of padding on each side, fewer than the smaller side of the image has; 0 leaves the images in place.
    flip
        Whether images are mirrored, left to right.
    fill
        Value of the padding, for all channels or for each: that of black, see `neurosim.data.normalise.black`.
    padding
        ``"black"`` (default): the padding holds `fill`. ``"edge"``: it repeats the pixels at the image's
        edge, and `fill` is not read.

    Raises
    ------
    DataError
        When the padding is negative or as wide as the image, `fill` has neither one value nor one for
        each channel, or `padding` is another word.
    """

    shape: tuple[int, ...]
    crop_padding: int
    flip: bool
    fill: tuple[float, ...] = (0.0,)
    padding: str = "black"

    def __post_init__(self) -> None:
        channels = 1 if len(self.shape) == 2 else self.shape[0]
        if self.crop_padding < 0:
            raise DataError(f"crop_padding = {self.crop_padding}; wanted 0 or more pixels.")
        height, width = self.shape[-2:]
        if self.crop_padding >= min(height, width):
            raise DataError(
                f"crop_padding = {self.crop_padding} for images of {height} x {width} pixels; wanted at most "
                f"{min(height, width) - 1}, so that some of each image is left in the window."
            )
        if self.padding not in PADDINGS:
            raise unknown("padding", self.padding, PADDINGS, DataError)
        if len(self.fill) not in (1, channels):
            raise DataError(f"fill has {len(self.fill)} values; wanted 1 or {channels}, one for each channel.")

    def __call__(self, images: torch.Tensor, seed: Sequence[int]) -> torch.Tensor:
        """Return augmented images.

        Parameters
        ----------
        images
            Floating point, shape ``(batch, pixels)``, flat rows in C order; left as it is.
        seed
            Whole numbers, not negative, e.g. those of run, epoch and batch.

        Returns
        -------
        torch.Tensor
            Shape, type and device of `images`.
        """
        height, width = self.shape[-2:]
        channels = 1 if len(self.shape) == 2 else self.shape[0]
        batch, pixels, device = len(images), height * width, images.device
        if images.shape != (batch, channels * pixels):
            raise DataError(f"images have the shape {tuple(images.shape)}; wanted (batch, {channels * pixels}).")
        shift, mirrored = (torch.from_numpy(drawn).to(device) for drawn in self._draw(batch, seed))
        column = torch.arange(width, device=device).expand(batch, width)
        column = torch.where(mirrored[:, None], width - 1 - column, column) + shift[:, 1:]
        row = torch.arange(height, device=device) + shift[:, :1]
        source = images.reshape(batch, channels, pixels)
        if self.padding == "edge":
            row, column = row.clamp(0, height - 1), column.clamp(0, width - 1)
            index = row[:, :, None] * width + column[:, None, :]
        else:  # what lies in the padding is read from one more pixel behind the last
            fill = torch.tensor(self.fill, dtype=images.dtype, device=device)
            source = torch.cat([source, fill[:, None].expand(batch, channels, 1)], dim=2)
            within = ((row >= 0) & (row < height))[:, :, None]
            inside = within & ((column >= 0) & (column < width))[:, None, :]
            index = torch.where(inside, row[:, :, None] * width + column[:, None, :], pixels)
        index = index.reshape(batch, 1, pixels).expand(batch, channels, pixels)
        return source.gather(2, index).reshape(images.shape)

    def _draw(self, batch: int, seed: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns by which the window is shifted, int64 ``(batch, 2)``; and who is mirrored, ``(batch,)``."""
        random = np.random.default_rng(list(seed))
        shift = random.integers(-self.crop_padding, self.crop_padding + 1, (batch, 2))
        return shift, random.random(batch) < (0.5 if self.flip else 0.0)
