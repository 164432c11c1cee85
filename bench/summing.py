"""How fast the GPUs of a machine sum an adapter's gradients: what bench/gpus.py assumes of the links.

    torchrun --standalone --nproc-per-node 2 bench/summing.py --out bench/results/summing-NAME.json

A row for each size: the notebook's gradients (float32, rank 128 on all linear layers of a 7B) as ragtune
sends them, in pieces, and a single piece. `seconds` is the median, of the slowest rank each time;
`gb_each_way` is what a GPU sent in a second, and received, as in a ring: to be compared with a link's speed by
its data sheet. Nothing is computed meanwhile. --tiny is for tests on a CPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import distributed as dist
from torch import nn

from machine import made_with
from ragtune.base.files import write_json
from ragtune.distributed.summing import Summing
from scaling import links

PIECE = 2**25
"""Numbers of a piece of 128 MiB."""
ROWS = {"a piece": [PIECE], "a 7B's gradients, rank 128": [PIECE // 4] * 38}
TINY = {"a piece": [64], "a 7B's gradients, rank 128": [16] * 4}
WARM, TIMED = 3, 15


def summed(sizes: Sequence[int], device: torch.device) -> list[float]:
    """Seconds until all ranks have the sums of gradients of these sizes, each time."""
    parameters = [nn.Parameter(torch.zeros(size, device=device)) for size in sizes]
    of_all, found = Summing(parameters), []
    for _ in range(WARM + TIMED):
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        dist.barrier()
        _wait(device)
        start = time.perf_counter()
        of_all.send(valid=True)
        of_all.receive()
        _wait(device)
        taken = torch.tensor([time.perf_counter() - start], device=device)
        dist.all_reduce(taken, dist.ReduceOp.MAX)
        found.append(float(taken))
    first = parameters[0].grad
    assert first is not None
    assert float(first[0]) == dist.get_world_size()
    return found[WARM:]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def row(sizes: Sequence[int], seconds: Sequence[float]) -> dict[str, float | int]:
    """What a size took, and how fast the links were."""
    count, size, median = dist.get_world_size(), 4 * sum(sizes), statistics.median(seconds)
    travels = 2 * (count - 1) / count * size
    return {
        "gpus": count,
        "bytes": size,
        "seconds": round(median, 6),
        "longest": round(max(seconds), 6),
        "gb_each_way": round(travels / median / 1e9, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    device, name = torch.device("cpu"), ""
    if torch.cuda.is_available():
        device = torch.device("cuda", dist.get_node_local_rank())
        torch.cuda.set_device(device)
        name = f"{dist.get_world_size()} × {torch.cuda.get_device_name(device)}"
    sizes = TINY if options.tiny else ROWS
    rows = {what: row(of, summed(of, device)) for what, of in sizes.items()}
    if dist.get_rank() == 0:
        write_json(options.out, {**made_with(device=name), "links": links(), "rows": rows})
        print("\n".join(f"{what}: {found}" for what, found in rows.items()))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
