"""The backbones' trunks, written as OpenVINO graphs from their weights: neither torch nor a conversion is needed.

A trunk is a row of stages, those of `shared.model.network` and with the same names of weights: the stem, blocks of
convolutions whose input is added to their output, and EfficientNet-Lite's top. Each convolution is followed by a
BatchNorm, which is folded into it.
"""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.model.backbones import INPUT_PX, TAPS
from shared.model.bundle import Normalisation
from shared.model.openvino_library import openvino_library
from shared.settings import Backbone

Graph = Any  # openvino.Model; the library ships no types
Tensors = Mapping[str, npt.NDArray[np.generic]]

_NORM = ("weight", "bias", "running_mean", "running_var")
TRACKED = ".num_batches_tracked"  # of a BatchNorm; older files lack it, and no answer depends on it

# Of EfficientNet-Lite (arXiv:1905.11946), by group of blocks: kernel, stride of its first block, expansion.
_LITE_GROUPS = ((3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6), (5, 2, 6), (3, 1, 6))
# How many blocks a group has, and the channels that it gives.
_LITE_BLOCKS = {
    Backbone.EFFICIENTNET_LITE0: ((1, 16), (2, 24), (2, 40), (3, 80), (3, 112), (4, 192), (1, 320)),
    Backbone.EFFICIENTNET_LITE2: ((1, 16), (3, 24), (3, 48), (4, 88), (4, 120), (5, 208), (1, 352)),
}


@dataclass(frozen=True)
class _Convolution:
    """A convolution without bias, and the BatchNorm after it.

    Attributes:
        name, norm: of the two, as the backbone's library names them.
        shape: (channels out, channels in of a group, kernel, kernel).
        pads: rows and columns of zeros before and after the input.
        depthwise: every channel is a group of its own.
        rectified: a rectifier follows.
    """

    name: str
    norm: str
    shape: tuple[int, int, int, int]
    stride: int
    pads: tuple[int, int]
    depthwise: bool = False
    rectified: bool = True


@dataclass(frozen=True)
class _Stage:
    """Convolutions one after the other.

    Attributes:
        shortcut: what its input passes to be added to the output; "itself": nothing; None: it is not added.
        max_pooled: the output is scaled down by half.
    """

    convolutions: tuple[_Convolution, ...]
    shortcut: _Convolution | str | None = None
    max_pooled: bool = False


@dataclass(frozen=True)
class _Trunk:
    """The stages of a backbone.

    Attributes:
        epsilon: of its BatchNorms.
        ceiling: of its rectifiers; None: they have none.
        rectified_sum: a rectifier follows where a stage's input is added.
    """

    stages: tuple[_Stage, ...]
    epsilon: float
    ceiling: float | None
    rectified_sum: bool


def trunk_shapes(backbone: Backbone) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a trunk, by its name in the backbone's library."""
    shapes: dict[str, tuple[int, ...]] = {}
    for stage in _trunk(backbone).stages:
        shortcut = (stage.shortcut,) if isinstance(stage.shortcut, _Convolution) else ()
        for convolution in (*stage.convolutions, *shortcut):
            shapes[f"{convolution.name}.weight"] = convolution.shape
            shapes |= {f"{convolution.norm}.{part}": convolution.shape[:1] for part in _NORM}
            shapes[convolution.norm + TRACKED] = ()
    return shapes


def trunk_graph(
    backbone: Backbone, normalisation: Normalisation, tensors: Tensors, size_px: int, *, n_stages: int | None = None
) -> Graph:
    """Write a trunk as an OpenVINO model with dynamic batch size.

    Args:
        backbone: which trunk.
        normalisation: of its inputs.
        tensors: at least those of `trunk_shapes`, in these shapes.
        size_px: side S of the photos.
        n_stages: to end after so many stages; None: all, and their features pooled.

    Returns:
        a graph: (n, S, S, 3) uint8 -> pooled features (n, width), the last stage's first and then the taps', or the
        feature maps (n, c, h, w) of the stage it ends with.
    """
    openvino, ops = openvino_library(), importlib.import_module("openvino.opset13")
    trunk = _trunk(backbone)

    def convolved(x: Any, convolution: _Convolution) -> Any:
        weight, bias = _folded(convolution, tensors, trunk.epsilon)
        stride, (before, after) = [convolution.stride] * 2, convolution.pads
        geometry = (np.array(stride), np.array([before] * 2), np.array([after] * 2), np.array([1, 1]))
        if convolution.depthwise:
            x = ops.group_convolution(x, ops.constant(weight[:, None]), *geometry)
        else:
            x = ops.convolution(x, ops.constant(weight), *geometry)
        x = ops.add(x, ops.constant(bias.reshape(1, -1, 1, 1)))
        return rectified(x) if convolution.rectified else x

    def rectified(x: Any) -> Any:
        return ops.relu(x) if trunk.ceiling is None else ops.clamp(x, 0.0, trunk.ceiling)

    def passed(x: Any, stage: _Stage) -> Any:
        start = x
        for convolution in stage.convolutions:
            x = convolved(x, convolution)
        if stage.shortcut is not None:
            x = ops.add(x, start if isinstance(stage.shortcut, str) else convolved(start, stage.shortcut))
            x = rectified(x) if trunk.rectified_sum else x
        if stage.max_pooled:
            pool = importlib.import_module("openvino.opset1").max_pool
            x = pool(x, [2, 2], [1, 1], [1, 1], [3, 3], "floor")
        return x

    def pooled(x: Any) -> Any:
        return ops.reduce_mean(x, np.array([2, 3]), keep_dims=False)

    pixels = ops.parameter([-1, size_px, size_px, 3], np.uint8, name="pixels")
    mean, std = (np.array(values, dtype=np.float32) for values in (normalisation.mean, normalisation.std))
    scale, shift = ((values.reshape(1, 3, 1, 1)) for values in (1 / (255 * std), mean / std))
    x = ops.convert(ops.transpose(pixels, np.array([0, 3, 1, 2])), np.float32)
    x = ops.subtract(ops.multiply(x, ops.constant(scale)), ops.constant(shift))
    taps = []
    for number, stage in enumerate(trunk.stages[:n_stages]):
        x = passed(x, stage)
        if number in TAPS[backbone]:
            taps.append(x)
    if n_stages is None:
        x = ops.concat([pooled(x), *map(pooled, taps)], 1)
    return openvino.Model([ops.result(x)], [pixels])


def _folded(
    convolution: _Convolution, tensors: Tensors, epsilon: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The weight and bias of a convolution that does what it and its BatchNorm do."""
    weight = tensors[f"{convolution.name}.weight"].astype(np.float64)
    scale, shift, mean, variance = (tensors[f"{convolution.norm}.{part}"].astype(np.float64) for part in _NORM)
    scale = scale / np.sqrt(variance + epsilon)
    return (weight * scale[:, None, None, None]).astype(np.float32), (shift - mean * scale).astype(np.float32)


@cache
def _trunk(backbone: Backbone) -> _Trunk:
    if backbone is Backbone.RESNET50:
        return _Trunk(tuple(_resnet50()), epsilon=1e-5, ceiling=None, rectified_sum=True)
    return _Trunk(tuple(_lite(backbone)), epsilon=1e-3, ceiling=6.0, rectified_sum=False)


def _resnet50() -> Iterator[_Stage]:
    """The stem and the 3 + 4 + 6 + 3 blocks of torchvision's ResNet50."""
    yield _Stage((_Convolution("conv1", "bn1", (64, 3, 7, 7), 2, (3, 3)),), max_pooled=True)
    channels = 64
    for layer, n_blocks in enumerate((3, 4, 6, 3), 1):
        inner = 32 << layer
        for block in range(n_blocks):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            yield _Stage(
                (
                    _Convolution(f"{name}.conv1", f"{name}.bn1", (inner, channels, 1, 1), 1, (0, 0)),
                    _Convolution(f"{name}.conv2", f"{name}.bn2", (inner, inner, 3, 3), stride, (1, 1)),
                    _Convolution(f"{name}.conv3", f"{name}.bn3", (4 * inner, inner, 1, 1), 1, (0, 0), rectified=False),
                ),
                "itself"
                if block
                else _Convolution(
                    f"{name}.downsample.0", f"{name}.downsample.1", (4 * inner, channels, 1, 1), stride, (0, 0),
                    rectified=False,
                ),
            )  # fmt: skip
            channels = 4 * inner


def _lite(backbone: Backbone) -> Iterator[_Stage]:
    """The stem, the blocks and the top of an EfficientNet-Lite."""
    side = INPUT_PX[backbone]  # padding is that of the photos it was trained on, whatever the size of those it is given

    def pads(kernel: int, stride: int) -> tuple[int, int]:  # TensorFlow's "same": the odd one comes after
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        return total // 2, total - total // 2

    yield _Stage((_Convolution("_conv_stem", "_bn0", (32, 3, 3, 3), 2, pads(3, 2)),))
    side, channels, number = -(-side // 2), 32, 0
    for (kernel, first_stride, expansion), (n_blocks, out) in zip(_LITE_GROUPS, _LITE_BLOCKS[backbone], strict=True):
        for block in range(n_blocks):
            name, stride, inner = f"_blocks.{number}", 1 if block else first_stride, expansion * channels
            expand = _Convolution(f"{name}._expand_conv", f"{name}._bn0", (inner, channels, 1, 1), 1, (0, 0))
            depthwise = _Convolution(
                f"{name}._depthwise_conv", f"{name}._bn1", (inner, 1, kernel, kernel), stride, pads(kernel, stride),
                depthwise=True,
            )  # fmt: skip
            project = _Convolution(
                f"{name}._project_conv", f"{name}._bn2", (out, inner, 1, 1), 1, (0, 0), rectified=False
            )
            yield _Stage(
                (*((expand,) if expansion > 1 else ()), depthwise, project),
                "itself" if stride == 1 and channels == out else None,
            )
            side, channels, number = -(-side // stride), out, number + 1
    yield _Stage((_Convolution("_conv_head", "_bn1", (1280, channels, 1, 1), 1, (0, 0)),))
