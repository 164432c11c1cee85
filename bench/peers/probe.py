"""Whether a layer in NF4 computes the same where it is spread: in as many processes as torchrun starts.

Prints what is otherwise, as JSON; nothing is if it is empty.
"""

from __future__ import annotations

import json
import os

import torch
from torch import distributed as dist
from torch import nn

from ragtune.base.versions import versions
from ragtune.distributed.sharded import difference
from ragtune.model.nf4 import packed


def main() -> None:
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    device, dtype = ("cuda", torch.bfloat16) if cuda else ("cpu", torch.float32)
    dist.init_process_group("nccl" if cuda else "gloo")
    generator = torch.Generator().manual_seed(0)
    plain = nn.Linear(1024, 512, bias=False, dtype=dtype)
    plain.weight.data = torch.randn(512, 1024, generator=generator).to(device, dtype)
    x = torch.randn(64, 1024, generator=generator).to(device, dtype)
    found = difference(lambda: nn.Sequential(packed(plain, dtype)), x)
    if dist.get_rank() == 0:
        print(json.dumps({"otherwise": found, **versions("bitsandbytes")}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
