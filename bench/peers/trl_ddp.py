"""A rank of TRL's SFTTrainer under torchrun, where accelerate wraps the model in DDP.

    torchrun --standalone --nproc-per-node GPUS -m peers.trl_ddp JOB.json VARIANT MICRO

VARIANT is the number of one of trl_sft's settings, MICRO the samples of a rank's batch. The samples of a step
are those that ragtune's ranks share. Rank 0 reports.
"""

from __future__ import annotations

import dataclasses
import sys

import torch

from peers.common import Job, cuda, emit, local_rank
from peers.trl_sft import SYSTEM, Bench, liger, variants


def main() -> None:
    job = Job.read()
    if cuda():
        torch.cuda.set_device(local_rank())
    variant = dataclasses.replace(variants(job)[int(sys.argv[2])], micro=int(sys.argv[3]))
    result = Bench(job).train(variant, job.recipe["lora"]["dropout"], job.recipe["train"]["steps"])
    name = f"DDP, {variant}"
    if local_rank() == 0:
        emit("losses", name=name, values=result.losses)
        emit("row", **result.row(SYSTEM, "train_step", variant=name, liger=liger()))


if __name__ == "__main__":
    main()
