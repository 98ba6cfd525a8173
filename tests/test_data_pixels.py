"""Normalisations against numbers worked out by hand; augmentation against a loop over pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neurosim import data
from neurosim.data.augment import Augment
from neurosim.data.normalise import black, normalise


def dataset(name, shape, dtype=np.float32):
    """Images of all 0, of all 1 and of 0.25."""
    images = np.repeat(np.array([[0.0], [1.0], [0.25]], dtype), int(np.prod(shape)), axis=1)
    labels = np.zeros(3, np.int64)
    return data.Dataset(name, images, labels, images.copy(), labels, images[:0], labels[:0], shape=shape, classes=1)


# (0 - mean) / sd, (1 - mean) / sd, (0.25 - mean) / sd for each channel, from the published constants in decimal arithmetic.
BY_HAND = {
    ("mnist", "standard"): [(-0.424213, 2.821486, 0.387212)],
    ("fashion_mnist", "standard"): [(-0.810198, 2.022663, -0.101983)],
    ("cifar10", "standard"): [
        (-1.989474, 2.059109, -0.977328),
        (-1.980287, 2.126489, -0.953593),
        (-1.706804, 2.115826, -0.751147),
    ],
    ("cifar100", "standard"): [
        (-1.897119, 1.843996, -0.961841),
        (-1.897426, 2.002730, -0.922387),
        (-1.596307, 2.024258, -0.691166),
    ],
    # sd 3 x (0.2023, 0.1994, 0.2010) = (0.6069, 0.5982, 0.6030)
    ("cifar10", "corinfomax"): [
        (-0.809689, 0.838029, -0.397759),
        (-0.806085, 0.865597, -0.388164),
        (-0.740464, 0.917910, -0.325871),
    ],
}


@pytest.mark.parametrize(("name", "normalisation"), BY_HAND)
def test_normalised_pixels_by_hand(name, normalisation):
    wanted = BY_HAND[name, normalisation]
    shape = (2, 2) if len(wanted) == 1 else (3, 2, 2)
    before = dataset(name, shape)
    after = normalise(before, normalisation)
    assert before.train_images.max() == 1  # left as it was
    for part in ("train", "validation"):
        got = after.split(part)[0]
        assert got.dtype == np.float32 and got.shape == before.split(part)[0].shape
        for channel, values in enumerate(wanted):
            np.testing.assert_allclose(
                got.reshape(3, len(wanted), 4)[:, channel], np.repeat(np.array(values)[:, None], 4, 1), atol=2e-6
            )
    assert after.test_images.shape == (0, np.prod(shape))
    np.testing.assert_allclose(black(name, normalisation), [values[0] for values in wanted], atol=2e-6)


def test_the_jpeg_copy_is_normalised_as_cifar10():
    for normalisation in ("standard", "corinfomax"):
        np.testing.assert_array_equal(
            normalise(dataset("cifar10_jpeg", (3, 2, 2)), normalisation).train_images,
            normalise(dataset("cifar10", (3, 2, 2)), normalisation).train_images,
        )


def test_none_is_for_all_and_copies_nothing():
    for name in ("digits", "stl10", "images:mine", "cifar10"):
        before = dataset(name, (3, 2, 2))
        assert normalise(before, "none") is before
        assert black(name, "none") == (0.0,)


@pytest.mark.parametrize(
    ("name", "normalisation", "message"),
    [
        ("stl10", "standard", r"'stl10' has no normalisation 'standard'.*On offer: none\."),
        ("stl10", "standard", r"On offer: none\."),
        ("mnist", "corinfomax", r"On offer: none, standard\."),
        ("cifar10", "standrad", r"Did you mean 'standard'\? On offer: none, standard, corinfomax, imagenet\."),
    ],
)
def test_a_normalisation_that_is_not_on_offer(name, normalisation, message):
    with pytest.raises(data.DataError, match=message):
        normalise(dataset(name, (2, 2)), normalisation)


# ----------------------------------------------------------------------------------------------- augmentation


def looped(images, shape, padding, flip, fill, seed):
    """Pad, cut, mirror: pixel by pixel. The draws are those that `Augment` documents by its `_draw`."""
    channels, height, width = (1, *shape) if len(shape) == 2 else shape
    shift, mirrored = Augment(shape, padding, flip, fill)._draw(len(images), seed)
    out = np.empty_like(images).reshape(-1, channels, height, width)
    for n, image in enumerate(images.reshape(-1, channels, height, width)):
        for c in range(channels):
            padded = np.full((height + 2 * padding, width + 2 * padding), fill[c % len(fill)], images.dtype)
            padded[padding : padding + height, padding : padding + width] = image[c]
            top, left = padding + shift[n]
            window = padded[top : top + height, left : left + width]
            out[n, c] = window[:, ::-1] if mirrored[n] else window
    return out.reshape(images.shape)


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("shape", "padding", "flip", "fill"),
    [
        ((5, 4), 2, True, (0.0,)),
        ((3, 5, 4), 2, True, (-1.5, 0.25, 7.0)),
        ((3, 5, 4), 1, False, (0.5,)),
        ((3, 5, 4), 0, True, (0.0,)),
        ((2, 3, 3), 2, True, (1.0, 2.0)),  # a window in which a single pixel can be left
    ],
)
def test_augmentation_equals_the_loop(shape, padding, flip, fill, dtype, device):
    images = np.random.RandomState(1).rand(40, int(np.prod(shape))).astype(dtype)
    given = torch.from_numpy(images).to(device)
    got = Augment(shape, padding, flip, fill)(given, [3, 1, 4])
    assert got.device == given.device
    np.testing.assert_array_equal(got.cpu().numpy(), looped(images, shape, padding, flip, fill, [3, 1, 4]))
    np.testing.assert_array_equal(given.cpu().numpy(), images)


def test_same_seed_same_images_other_seed_other_images():
    images, augment = torch.rand(64, 75), Augment((3, 5, 5), 2, True)
    assert torch.equal(augment(images, [1, 2]), augment(images, [1, 2]))
    assert not torch.equal(augment(images, [1, 2]), augment(images, [2, 1]))


def test_draws_are_uniform():
    """Every shift of -2..2 a fifth of the time, half mirrored; 5 sigma of 50,000 draws."""
    shift, mirrored = Augment((4, 4), 2, True)._draw(50_000, [7])
    for column in shift.T:
        assert np.abs(np.bincount(column + 2, minlength=5) / 50_000 - 0.2).max() < 5 * np.sqrt(0.16 / 50_000)
    assert shift.min() == -2 and shift.max() == 2
    assert abs(mirrored.mean() - 0.5) < 5 * 0.5 / np.sqrt(50_000)
    assert abs(np.corrcoef(shift[:, 0], shift[:, 1])[0, 1]) < 5 / np.sqrt(50_000)


def test_no_padding_and_no_flip_change_nothing():
    images = torch.rand(6, 12)
    assert torch.equal(Augment((3, 2, 2), 0, False)(images, [0]), images)


def test_augmentation_that_does_not_fit():
    with pytest.raises(data.DataError, match=r"crop_padding = -1; wanted 0 or more"):
        Augment((2, 2), -1, True)
    for shape, padding in (((3, 5), 3), ((3, 5, 3), 3), ((1, 3, 3), 6)):
        with pytest.raises(data.DataError, match=rf"crop_padding = {padding} for images .* wanted at most 2"):
            Augment(shape, padding, True)
        Augment(shape, 2, True)
    with pytest.raises(data.DataError, match=r"fill has 2 values; wanted 1 or 3"):
        Augment((3, 2, 2), 1, True, (0.0, 1.0))
    with pytest.raises(data.DataError, match=r"shape \(4, 11\); wanted \(batch, 12\)"):
        Augment((3, 2, 2), 1, True)(torch.zeros(4, 11), [0])
