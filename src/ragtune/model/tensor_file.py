"""Files of tensors, as safetensors has them: written, and their checksum made, beside other work."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
import torch
from peft import peft_model
from safetensors.torch import save_file
from transformers import modeling_utils

from ragtune.base.errors import no_thread
from ragtune.base.files import remember

KINDS = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
"""safetensors' names of what is written here, in the order in which a file has them."""
AHEAD = 4
"""Tensors that may wait for the disk."""

Data = bytes | memoryview
Tensors = Mapping[str, torch.Tensor]
PLAIN = {"format": "pt"}
"""What a file says of itself, by which transformers knows whose tensors it holds."""


class TensorFile:
    """A file that is written, and its checksum made, beside the work on the tensors that follow."""

    def __init__(self, path: Path, done: Callable[[torch.Tensor], None]) -> None:
        self.path, self.done = path, done
        self.digest = hashlib.sha256()
        self.threads = [ThreadPoolExecutor(1), ThreadPoolExecutor(1)]  # the disk's, the checksum's
        self.waiting: deque[tuple[torch.Tensor | None, list[Future[None]]]] = deque()

    def __enter__(self) -> Self:
        self.file = self.path.open("xb", buffering=0)
        return self

    def write(self, data: Data, tensor: torch.Tensor | None = None) -> None:
        """Let data be written, those of a tensor if it is given; waits where too many are."""
        if len(self.waiting) > AHEAD:
            self._wait()
        acts = (self._write, self.digest.update)
        begun = [thread.submit(act, data) for thread, act in zip(self.threads, acts, strict=True)]
        self.waiting.append((tensor, begun))

    def _write(self, data: Data) -> None:
        left = memoryview(data)
        while left:  # Linux writes at most 2 GiB at a time
            left = left[self.file.write(left) :]

    def put(self, tensor: torch.Tensor) -> None:
        self.write(bytes_of(tensor).data, tensor)

    def _wait(self) -> None:
        tensor, acts = self.waiting.popleft()
        for act in acts:
            act.result()
        if tensor is not None:
            self.done(tensor)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while self.waiting and kind is None:
                self._wait()
        finally:
            for thread in self.threads:
                thread.shutdown(cancel_futures=True)
            self.file.close()
        if kind is None:
            remember(self.path, self.digest.hexdigest())


def in_file(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Tensors in the order in which safetensors writes them."""
    order = list(KINDS)
    return dict(sorted(tensors.items(), key=lambda one: (order.index(one[1].dtype), one[0])))


def header(tensors: Tensors, metadata: Mapping[str, str] = PLAIN) -> bytes:
    """The beginning of a safetensors file with these tensors, in their order."""
    said: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        said[name] = {
            "dtype": KINDS[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def bytes_of(tensor: torch.Tensor) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy()


def save_tensors(
    tensors: Tensors, filename: str | Path, metadata: Mapping[str, str] = PLAIN
) -> None:
    """What safetensors' `save_file` writes, byte for byte; its checksum is made meanwhile, and remembered."""
    # Of several words of metadata the order is safetensors' own.
    if len(metadata) != 1 or any(one.dtype not in KINDS for one in tensors.values()):
        save_file(tensors, filename, metadata)
        return
    path, ordered = Path(filename), in_file(tensors)
    path.unlink(missing_ok=True)
    try:
        with TensorFile(path, lambda _: None) as file:
            file.write(header(ordered, metadata))
            for tensor in ordered.values():
                file.put(tensor.detach().cpu())
    except RuntimeError as error:
        if not no_thread(error):
            raise
        save_file(tensors, filename, metadata)  # it needs none


@contextmanager
def saving_by(save: Callable[..., None]) -> Iterator[None]:
    """Within, PEFT and transformers have another `save_file` of safetensors: it is given what they write."""
    modules = (peft_model, modeling_utils)
    kept = [module.safe_save_file for module in modules]
    try:
        for module in modules:
            module.safe_save_file = save
        yield
    finally:
        for module, own in zip(modules, kept, strict=True):
            module.safe_save_file = own
