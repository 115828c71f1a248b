"""The dataset as tensors on a device, and batches out of it as a few whole-batch operations.

Shapes: N images, B of a batch, H W height and width, C channels. Stored uint8 NHWC; a batch comes out as float NCHW in
channels_last memory, which is the same bytes in the same order, so no transposition is ever done.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from nas_cluster.core.errors import DataError
from nas_cluster.core.task import ImageTask
from nas_cluster.datasets.base import ImageArrays
from nas_cluster.training.plan import IndexPlan
from nas_cluster.training.settings import ImageSettings

__all__ = ["ImageStore"]

Indices = NDArray[np.int64]
_EVALUATION_BATCH = 500
_RESIZE_CHUNK = 2048


class ImageStore:
    """All images of a dataset for one worker process, resized once, normalised by the training split.

    Raises DataError when the images are larger than the size that they should be upsampled to.
    """

    def __init__(
        self, data: ImageArrays, training: Indices, validation: Indices, settings: ImageSettings, device: str
    ) -> None:
        self._settings = settings
        self.device = torch.device(device)
        size = (settings.input_size,) * 2 if settings.input_size else data.x_train.shape[1:3]
        self.size: tuple[int, int] = (int(size[0]), int(size[1]))
        self.training, self.validation = training, validation
        self.task = ImageTask(*self.size, channels=data.x_train.shape[3], classes=data.classes)
        enlarged = (settings.upsample,) * 2 if settings.upsample else self.size
        if any(big < n for big, n in zip(enlarged, self.size, strict=True)):
            images = f"{self.size[0]}x{self.size[1]}"
            raise DataError(f"upsample {settings.upsample} is smaller than the images ({images}); set input_size too")
        self._padding = 0 if settings.upsample else settings.crop_padding
        self.offsets = tuple(big + 2 * self._padding - n + 1 for big, n in zip(enlarged, self.size, strict=True))
        self._train = self._load(data.x_train, enlarged)
        self._train_labels = self._load(data.y_train)
        self._test_arrays = (data.x_test, data.y_test, enlarged)
        mean, std = _channel_statistics(data.x_train, training)
        self._mean = torch.tensor(mean, dtype=torch.float32, device=self.device)
        self._factor = torch.tensor(1 / std, dtype=torch.float32, device=self.device)
        self._row_mean, self._row_factor = (v.repeat(self.size[1]) for v in (self._mean, self._factor))

    def _load(self, array: NDArray[np.generic], size: tuple[int, int] | None = None) -> Tensor:
        """To the device. On the CPU the tensor shares the memory-mapped file with all other workers."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            tensor = torch.from_numpy(np.asarray(array))
        if size is not None and tuple(tensor.shape[1:3]) != tuple(size):
            tensor = torch.cat([_resize(part, size) for part in _chunks(tensor, _RESIZE_CHUNK)])
        return tensor.to(self.device)

    def plan(self, seed: int) -> IndexPlan:
        """The index plan of one child."""
        settings = self._settings
        return IndexPlan(
            seed, self.training, settings.batch_size, (self.offsets[0], self.offsets[1]), self.size, settings.flip
        )

    def training_batch(self, rows_6B: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and labels (B) of one step of a plan (`EpochPlan.stacked()[step]`)."""
        index_B, _, _, _, cut_y_B, cut_x_B = rows_6B.unbind(0)
        x_BHWC = self._train.index_select(0, index_B)
        if self._padding:
            p = self._padding
            x_BHWC = F.pad(x_BHWC, (0, 0, p, p, p, p))
        cut = self._cut_on_cpu if self.device.type == "cpu" else self._cut
        x_BHWC = self._normalise(cut(x_BHWC, rows_6B))
        if self._settings.cutout:
            x_BHWC = x_BHWC * self._cutout_mask(cut_y_B, cut_x_B)
        return x_BHWC.to(dtype).permute(0, 3, 1, 2), self._train_labels.index_select(0, index_B)

    def validation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out images and labels in order. One batch at a time is in memory as float32."""
        return self.batches_of(self.validation)

    def batches_of(self, indices: Indices) -> Iterator[tuple[Tensor, Tensor]]:
        """These images of the training set without augmentation, in order."""
        for index_B in _chunks(torch.from_numpy(indices).to(self.device), _EVALUATION_BATCH):
            yield self._centre(self._train.index_select(0, index_B)), self._train_labels.index_select(0, index_B)

    def test_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The test images and labels in order, loaded on the first call for them."""
        x_test, y_test, enlarged = self._test_arrays
        parts = (_chunks(array, _EVALUATION_BATCH) for array in (self._load(x_test, enlarged), self._load(y_test)))
        for x_BHWC, labels_B in zip(*parts, strict=True):
            yield self._centre(x_BHWC), labels_B

    def _centre(self, x_BHWC: Tensor) -> Tensor:
        """Stored images as a child sees them without augmentation: the centre, normalised."""
        top, left = ((big - n) // 2 for big, n in zip(x_BHWC.shape[1:3], self.size, strict=True))
        centre = x_BHWC[:, top : top + self.size[0], left : left + self.size[1]]
        return self._normalise(centre).permute(0, 3, 1, 2)

    def _cut(self, x_BHWC: Tensor, rows_6B: Tensor) -> Tensor:
        """Crop and mirror uint8 images as torch operations, for any device."""
        _, top_B, left_B, mirror_B, _, _ = rows_6B.unbind(0)
        B, _, width, C = x_BHWC.shape
        H, W = self.size
        if self.offsets != (1, 1):
            windows = x_BHWC.reshape(B, -1, width * C).unfold(1, H, 1).unfold(2, W * C, C)  # (B, tops, lefts, H, W*C)
            x_BHWC = windows[torch.arange(B, device=x_BHWC.device), top_B, left_B].view(B, H, W, C)
        if self._settings.flip:
            x_BHWC = torch.where(mirror_B.bool()[:, None, None, None], x_BHWC.flip(2), x_BHWC)
        return x_BHWC

    def _cut_on_cpu(self, x_BHWC: Tensor, rows_6B: Tensor) -> Tensor:
        """The same through numpy, which copies whole rows of bytes where torch moves single ones: ten times faster."""
        _, top_B, left_B, mirror_B, _, _ = rows_6B.numpy()
        images = x_BHWC.numpy()
        B, height, width, C = images.shape
        H, W = self.size
        if self.offsets != (1, 1):
            windows = sliding_window_view(images.reshape(B, height, width * C), (H, W * C), axis=(1, 2))
            images = windows[np.arange(B), top_B, left_B * C].reshape(B, H, W, C)
        if self._settings.flip:
            mirrored = mirror_B.astype(bool)
            images[mirrored] = images[mirrored, :, ::-1]
        return torch.from_numpy(images)

    def _normalise(self, x_BHWC: Tensor) -> Tensor:
        """(x - mean) / std per channel in float32; on whole rows (W*C), which vectorise where 3 channels do not."""
        rows = x_BHWC.reshape(*x_BHWC.shape[:2], -1).to(torch.float32)
        return rows.sub_(self._row_mean).mul_(self._row_factor).view(x_BHWC.shape)

    def _cutout_mask(self, cut_y_B: Tensor, cut_x_B: Tensor) -> Tensor:
        """0 inside a square around the centre, 1 outside; (B, H, W, 1)."""
        side = self._settings.cutout
        (H, W), low = self.size, side // 2
        y_BH = torch.arange(H, device=self.device) - cut_y_B[:, None]
        x_BW = torch.arange(W, device=self.device) - cut_x_B[:, None]
        inside_BH, inside_BW = ((d >= -low) & (d < side - low) for d in (y_BH, x_BW))
        return (~(inside_BH[:, :, None] & inside_BW[:, None, :])).to(torch.float32)[..., None]


def _chunks(tensor: Tensor, size: int) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = tensor.split(size)  # type: ignore[no-untyped-call]
    return parts


def _resize(x_NHWC: Tensor, size: tuple[int, int]) -> Tensor:
    x_NCHW = x_NHWC.permute(0, 3, 1, 2).to(torch.float32)
    x_NCHW = F.interpolate(x_NCHW, size, mode="bilinear", antialias=True, align_corners=False)
    return x_NCHW.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _channel_statistics(x_NHWC: NDArray[np.uint8], indices: Indices) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation per channel of the images in `indices`, exactly, from 256-bin histograms."""
    values = np.arange(256, dtype=np.float64)
    counts = np.zeros((x_NHWC.shape[3], 256), np.int64)
    for part in np.array_split(indices, max(1, len(indices) // _RESIZE_CHUNK)):
        for channel, histogram in enumerate(counts):
            histogram += np.bincount(x_NHWC[part, ..., channel].ravel(), minlength=256)
    total = counts.sum(1)
    mean = counts @ values / total
    variance = counts @ values**2 / total - mean**2
    return mean, np.sqrt(np.maximum(variance, 1e-6))
