"""Reads and writes safetensors files with numpy alone.

Format: a little-endian u64 header length, that many bytes of JSON
{name: {"dtype", "shape", "data_offsets": [begin, end]}}, then the data.
"""

import json
import struct

import numpy as np

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "|u1"}
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}


def save(path, tensors):
    """Writes {name: array}. The bytes depend on names and values only, not on the dict's order."""
    header = {"__metadata__": {"format": "pt"}}
    # Widest element first, so that every tensor stays aligned to its element size.
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    position = 0
    for name in names:
        array = tensors[name]
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [position, position + array.nbytes],
        }
        position += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for name in names:
            file.write(np.ascontiguousarray(tensors[name]).tobytes())


def load(path):
    """Returns {name: array}; BF16 comes back as float32, which holds it exactly."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    header.pop("__metadata__", None)
    return {name: _decode(path, name, entry, data) for name, entry in header.items()}


def _decode(path, name, entry, data):
    begin, end = entry["data_offsets"]
    if end > len(data):
        raise ValueError(f"{path}: tensor {name} ends at byte {end} of {len(data)}; the file is truncated")
    raw = data[begin:end]
    if entry["dtype"] == "BF16":
        array = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    elif entry["dtype"] in _DTYPES:
        array = np.frombuffer(raw, _DTYPES[entry["dtype"]])
    else:
        raise ValueError(f"{path}: tensor {name} has dtype {entry['dtype']}, which is not read here")
    return array.reshape(entry["shape"])
