"""transformers' Trainer with checkpoints of ours: whole, written beside the training, and read to the last."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from transformers import PreTrainedModel, Trainer
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from ragtune.base.errors import RagtuneError
from ragtune.distributed.world import World
from ragtune.model.full import read_into
from ragtune.model.lora import refresh
from ragtune.model.skeleton import has_own_code
from ragtune.model.tensor_file import save_tensors, saving_by
from ragtune.model.wrapping import Tuned, digest_of
from ragtune.store.seal import is_whole
from ragtune.training.average import Average
from ragtune.training.checkpoint import Writer, keep_newest

_DRIFTED = (
    "Every rank adds up the same: one that gets another result has a fault in its GPU or its memory. Leave it "
    "out: the same command goes on from the last checkpoint."
)


class SavingTrainer(Trainer):
    """Trainer with checkpoints of ours.

    Args:
        keep: checkpoints to keep.
        world: the ranks, if there are several.
        options: Trainer's.
    """

    def __init__(self, *, keep: int, world: World | None, **options: object) -> None:
        super().__init__(**options)
        self.keep = keep
        self.world = world
        self.learning = [p for p in self.model.parameters() if p.requires_grad]
        self.average: Average | None = None
        """Of the last steps' weights, if it is wanted."""
        self.writer = Writer()
        if world:
            world.pulse.writing = self.writer.busy

    def load_best(self) -> None:
        """Put the weights of the best step into the model.

        Trainer's own way remembers a path, and takes the last step in silence if the run was moved.
        """
        best = Path(self.args.output_dir) / f"checkpoint-{self.state.best_global_step}"
        if not is_whole(best):
            raise RagtuneError(
                f"The best checkpoint, {best}, is gone or damaged.",
                f"Delete {best.parent} and run the same command again: the training is repeated.",
            )
        self._load_from_checkpoint(str(best))

    def require_alike(self) -> None:
        """See that every rank has the same weights, where all compute alike.

        Raises:
            RagtuneError: one has others.
        """
        if self.world and self.world.alike:
            with self.world.saving():
                digest = digest_of(self.model, trained=True)
                self.world.require_same(digest, "The adapter", _DRIFTED)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: Tuned | None = None
    ) -> None:
        """Each weight must be there, and none may be beyond; Trainer would take less in silence."""
        model, folder = model or self.model, Path(resume_from_checkpoint)
        if isinstance(model, PreTrainedModel):
            read_into(model, folder, trust_remote_code=has_own_code(model.config))
        else:
            refresh(model, folder)
        if self.average:
            self.average.load(folder)

    def _save_checkpoint(self, model: Tuned, trial: object) -> None:
        self.require_alike()
        if self.world and not self.world.leads:
            return
        folder = Path(self._get_output_dir(trial=trial))
        checkpoint = folder / f"checkpoint-{self.state.global_step}"
        # Weights, AdamW's two averages and perhaps that of the weights, in float32.
        needed = (16 if self.average else 12) * sum(p.numel() for p in self.learning)
        # Only when the manifest stands may older ones go: until then this one does not count.
        then = partial(keep_newest, folder, self.keep, self.state.best_global_step)
        with self.writer.checkpoint(checkpoint, needed, then), saving_by(self._save_tensors):
            super()._save_checkpoint(model, trial)
            if self.average:
                self.average.save(checkpoint, self.writer)

    def _save_tensors(
        self, tensors: dict[str, torch.Tensor], filename: str, metadata: dict[str, str]
    ) -> None:
        metadata = dict(metadata)
        self.writer.save(lambda copied: save_tensors(copied, filename, metadata), tensors)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """As Trainer does on one device, but for when the optimizer's state is written."""
        folder = Path(output_dir)
        self.writer.save(
            lambda state: torch.save(state, folder / OPTIMIZER_NAME), self.optimizer.state_dict()
        )
        torch.save(self.lr_scheduler.state_dict(), folder / SCHEDULER_NAME)
