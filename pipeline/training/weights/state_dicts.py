"""Read a file of weights without torch: safetensors, or what torch.save writes, of which nothing is ever run.

torch.save pickles the tensors' shapes and refers to their numbers. Since torch 1.6 its file is a zip of the pickle and
a file for each block of numbers; before, it was a row of pickles, then the blocks. A pickle may name any function to
be called while it is read: here all but the few that make up a state dict are refused.
"""

import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import Unpickler, UnpicklingError
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, deserialize

from shared.errors import WeightsUnusable

Array = npt.NDArray[np.generic]

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001  # of the row of pickles
_BFLOAT16 = "BFloat16Storage"  # the upper half of a float32, which numpy has no type for
_TYPES = {
    "BoolStorage": "?", "ByteStorage": "u1", "CharStorage": "i1", "ShortStorage": "<i2", "IntStorage": "<i4",
    "LongStorage": "<i8", "HalfStorage": "<f2", "FloatStorage": "<f4", "DoubleStorage": "<f8", _BFLOAT16: "<u2",
}  # fmt: skip
_SAFE_TYPES = {
    "BOOL": "BoolStorage", "U8": "ByteStorage", "I8": "CharStorage", "I16": "ShortStorage", "I32": "IntStorage",
    "I64": "LongStorage", "F16": "HalfStorage", "F32": "FloatStorage", "F64": "DoubleStorage", "BF16": _BFLOAT16,
}  # fmt: skip
_WRAPPINGS = ("state_dict", "model_state_dict", "model")  # of trainers
_ERRORS = (
    OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError, UnpicklingError,
    OverflowError, struct.error, zipfile.BadZipFile, SafetensorError,
)  # fmt: skip


def read_state_dict(file: Path) -> dict[str, Array]:
    """Read every tensor of a state dict, out of what trainers wrap it in.

    Args:
        file: .safetensors, or as torch.save writes it; tensors of bfloat16 are read as float32.

    Raises:
        WeightsUnusable: it is something else.
    """
    try:
        if file.suffix == ".safetensors":
            saved = deserialize(file.read_bytes())  # type: ignore[no-untyped-call]
            return {name: _array(_SAFE_TYPES[it["dtype"]], it["data"], it["shape"]) for name, it in saved}
        with file.open("rb") as opened:
            return _read(opened)
    except _ERRORS as exc:
        raise WeightsUnusable(
            f"{file.name} cannot be read as weights; a state dict saved by torch.save or safetensors is needed"
        ) from exc
    except _NoStateDict as exc:
        raise WeightsUnusable(f"{file.name} does not hold a state dict") from exc


class _NoStateDict(Exception):
    pass


@dataclass(frozen=True)
class _Block:
    """Numbers of one type, which tensors are views of; `start` of them are left out."""

    kind: str
    key: str
    start: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a block; `start` and `strides` count numbers."""

    block: _Block
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, content: bytes) -> Array:
        return _array(self.block.kind, content, self.shape, self.block.start + self.start, self.strides)


def _array(
    kind: str, content: bytes, shape: Sequence[int], start: int = 0, strides: Sequence[int] | None = None
) -> Array:
    dtype = np.dtype(_TYPES[kind])
    steps = None if strides is None else [n * dtype.itemsize for n in strides]
    # numpy refuses a view that reaches beyond its content.
    array: Array = np.ndarray(shape, dtype, content, start * dtype.itemsize, steps)
    return (array.astype(np.uint32) << 16).view(np.float32) if kind == _BFLOAT16 else array


def _rebuilt_tensor(block: _Block, start: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object) -> _Tensor:
    return _Tensor(block, start, tuple(shape), tuple(strides))


def _rebuilt_parameter(tensor: _Tensor, *_: object) -> _Tensor:
    return tensor


class _StateDictUnpickler(Unpickler):
    """Makes dictionaries, lists, numbers, strings and `_Tensor`; whatever else a pickle names is an error."""

    _KNOWN: Mapping[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch", "Size"): tuple,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuilt_tensor,
        ("torch._utils", "_rebuild_parameter"): _rebuilt_parameter,
        **{("torch", kind): kind for kind in _TYPES},
    }

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.kinds: dict[str, str] = {}  # of the blocks, by key

    def find_class(self, module: str, name: str, /) -> Any:
        """Refuse what is not part of a state dict."""
        try:
            return self._KNOWN[module, name]
        except KeyError:
            raise UnpicklingError(f"{module}.{name} is not part of a state dict") from None

    def persistent_load(self, pid: Any, /) -> _Block:
        """Refer to a block: ("storage", its type, its key, a device, its length, and a part of it in old files)."""
        _, kind, key, _, _, *part = pid
        self.kinds[key] = kind
        return _Block(kind, key, part[0][1] if part and part[0] else 0)


def _read(file: IO[bytes]) -> dict[str, Array]:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            (name,) = (name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl"))
            directory = name.removesuffix("data.pkl")
            if f"{directory}byteorder" in archive.namelist() and archive.read(f"{directory}byteorder") != b"little":
                raise ValueError("it was written on a machine of the other byte order")
            with archive.open(name) as pickled:
                saved = _StateDictUnpickler(pickled).load()
            return _arrays(saved, lambda key: archive.read(f"{directory}data/{key}"))
    file.seek(0)
    if _StateDictUnpickler(file).load() != _MAGIC or _StateDictUnpickler(file).load() != _VERSION:
        raise _NoStateDict
    if not _StateDictUnpickler(file).load()["little_endian"]:
        raise ValueError("it was written on a machine of the other byte order")
    unpickler = _StateDictUnpickler(file)
    saved = unpickler.load()
    places = {}
    for key in _StateDictUnpickler(file).load():
        (length,) = struct.unpack("<q", file.read(8))
        n_bytes = length * np.dtype(_TYPES[unpickler.kinds[key]]).itemsize
        places[key] = file.tell(), n_bytes
        file.seek(n_bytes, 1)

    def content(key: str) -> bytes:
        start, n_bytes = places[key]
        file.seek(start)
        return file.read(n_bytes)

    return _arrays(saved, content)


def _arrays(saved: Any, content: Callable[[str], bytes]) -> dict[str, Array]:
    """The tensors of what was unpickled; `content` reads a block."""
    for wrapping in _WRAPPINGS:
        if isinstance(saved, dict) and isinstance(saved.get(wrapping), dict):
            saved = saved[wrapping]
    if not isinstance(saved, dict) or not all(isinstance(k, str) and isinstance(v, _Tensor) for k, v in saved.items()):
        raise _NoStateDict
    blocks = {key: content(key) for key in {tensor.block.key for tensor in saved.values()}}
    return {name.removeprefix("module."): tensor.array(blocks[tensor.block.key]) for name, tensor in saved.items()}
