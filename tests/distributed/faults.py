"""What can happen to a rank: each is put into its process before it does anything."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _at_step(step: int, act: Callable[[dict[str, Any]], object]) -> None:
    """Before each row of a step, in training."""
    from ragtune.training.trainer import PackedTrainer

    original = PackedTrainer.compute_loss

    def compute(self: Any, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        if model.training and self.state.global_step + 1 == step:
            act(inputs)
        return original(self, model, inputs, *rest, **named)

    PackedTrainer.compute_loss = compute  # type: ignore[method-assign]


def signal_at_step(step: int, number: int) -> None:
    """A signal comes: once, also if the step begins again."""
    came: list[bool] = []

    def act(_: object) -> None:
        if not came:
            came.append(True)
            os.kill(os.getpid(), number)

    _at_step(step, act)


def wait_at_step(step: int, path: str) -> None:
    """It goes on when there is such a file."""

    def act(_: object) -> None:
        while not Path(path).exists():
            time.sleep(0.01)

    _at_step(step, act)


def killed_before_they_meet() -> None:
    """Rank 0 is killed when the others may have begun, but none was told where it is."""
    from ragtune.stages.ranks import Ranks

    Ranks.start = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]


def read_when_one_is_gone(path: str) -> None:
    """Rank 0 begins to read the data, which the file is there for, and has read them when another is gone."""
    from ragtune.data import prepare
    from ragtune.distributed import followers

    begin, original, started = followers.start, prepare.read_examples, list[Any]()

    def start(*given: Any) -> Any:
        started.append(begin(*given))
        return started[-1]

    def read(*given: Any) -> Any:
        Path(path).touch()
        (one,) = started
        one.process.wait()
        return original(*given)

    followers.start = start
    prepare.read_examples = read


def killed_in_import(path: str) -> None:
    """When there is such a file."""
    while not Path(path).exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


def broken_import(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.01)
    raise ImportError("libtorch.so: not to be opened")


def signal_in_check(number: int) -> None:
    """A signal comes while it is checked, when the other ranks have begun."""
    from ragtune.stages import run

    original = run.look

    def look(context: Any) -> Any:
        world = context.ranks.world
        while not (world.has("host/1") and world.has("host/2")):
            time.sleep(0.01)
        os.kill(os.getpid(), number)
        return original(context)

    run.look = look


def slow_steps(seconds: float) -> None:
    from ragtune.training.trainer import PackedTrainer

    original = PackedTrainer.training_step

    def step(*given: Any, **named: Any) -> Any:
        time.sleep(seconds)
        return original(*given, **named)

    PackedTrainer.training_step = step  # type: ignore[method-assign]


def memory_at_step(step: int, samples: int) -> None:
    """Memory does not do for a row of more samples than these."""

    def act(inputs: dict[str, Any]) -> None:
        if len(inputs["cu_seq_lens_q"]) - 1 > samples:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    _at_step(step, act)


def fault_at_step(step: int) -> None:
    def act(_: object) -> None:
        raise KeyError("what nobody thought of")

    _at_step(step, act)


def signal_at_pairs(number: int) -> None:
    """A signal comes while the pairs of preference tuning are read, before the second row's margins."""
    from ragtune.training import preference

    original, rows = preference.referenced, list[object]()

    def read(*arguments: Any) -> Any:
        rows.append(arguments)
        if len(rows) == 2:
            os.kill(os.getpid(), number)
        return original(*arguments)

    preference.referenced = read


def nan_at_step(step: int) -> None:
    from ragtune.training import trainer

    original = trainer.read_row
    factor = [1.0]

    def read(model: Any, row: Any) -> Any:
        outputs, logits = original(model, row)
        return outputs, logits * factor[0]

    trainer.read_row = read
    _at_step(step, lambda _: factor.__setitem__(0, float("nan")))


def full_disk_at_checkpoint() -> None:
    from ragtune.training import checkpoint

    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    checkpoint.seal = full  # type: ignore[assignment]


def slow_disk() -> None:
    """Checkpoint and adapter are written only when a rank was lost for longer than it is waited for."""
    from ragtune.distributed import limits
    from ragtune.distributed.pulse import Pulse
    from ragtune.training import checkpoint, train

    limits.BEAT, limits.STUCK = 0.1, 0.3
    looks: list[float] = []
    look = Pulse._end_if_stuck

    def end(self: Any, *given: Any) -> None:
        if self.lost:
            looks.append(time.monotonic())
        look(self, *given)

    def slow(act: Callable[..., None]) -> Callable[..., None]:
        def late(*given: Any) -> None:
            while not looks or looks[-1] - looks[0] < 3 * limits.STUCK:
                time.sleep(0.01)
            act(*given)

        return late

    Pulse._end_if_stuck = end  # type: ignore[method-assign]
    checkpoint.seal = slow(checkpoint.seal)
    train.save_adapter = slow(train.save_adapter)


def stuck_on_a_slow_disk() -> None:
    """A sum with one that is lost does not end before the checkpoint is whole, as one of NCCL's."""
    from ragtune.distributed.world import World
    from ragtune.training import checkpoint

    slow_disk()
    seal, sealed = checkpoint.seal, threading.Event()
    checkpoint.seal = lambda path: (seal(path), sealed.set())  # type: ignore[assignment, func-returns-value]
    World._await_lost = lambda _: sealed.wait() and None  # type: ignore[method-assign]


def killed_when_trained() -> None:
    from ragtune.stages import follow

    original = follow.follow_training

    def train(*given: Any) -> None:
        original(*given)
        os.kill(os.getpid(), signal.SIGKILL)

    follow.follow_training = train


def die_answering() -> None:
    from ragtune.answering.local import Local

    Local._rows = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment, method-assign]


def slow_answering() -> None:
    """So that the others have something to answer."""
    from ragtune.answering.local import Local

    original = Local._rows

    def rows(*given: Any) -> Any:
        time.sleep(1)
        return original(*given)

    Local._rows = rows  # type: ignore[method-assign]


def others_answer_first() -> None:
    """No fault: rank 0 answers when another rank has, wherever there is more than one batch."""
    from ragtune.answering.shared import Shared

    original = Shared.lead

    def lead(self: Any, batches: Any, room: Any, ask: Any) -> Any:
        answered = [self._key("rows", index) for index in range(len(batches))]
        begun = [len(batches) == 1]

        def wait(batch: Any) -> Any:
            while not any(begun):
                begun.extend(map(self.world.has, answered))
                time.sleep(0.01)
            return ask(batch)

        return original(self, batches, room, wait)

    Shared.lead = lead  # type: ignore[method-assign]


def soon_silent() -> None:
    """It takes no minute until a rank counts as lost."""
    from ragtune.distributed import limits

    limits.SILENT = 3.0
    limits.BEAT = 0.2


def other_weights() -> None:
    """A file of the model differs by a single bit."""
    import torch

    from ragtune.stages import weights

    original = weights.load_model

    def load(*given: Any, **named: Any) -> Any:
        model = original(*given, **named)
        first = next(model.parameters()).data
        first.view(torch.int32).flatten()[0] ^= 1
        return model

    weights.load_model = load


def other_data() -> None:
    """The training data have another sample."""
    _steps(lambda found: [found[1], found[0], *found[2:]])


def other_rejected() -> None:
    """Of one pair another answer is rejected."""

    def change(found: Any) -> Any:
        (one, *samples), *rest = found
        return [[dataclasses.replace(one, rejected_ids=[*one.rejected_ids, 7]), *samples], *rest]

    _steps(change)


def other_steps() -> None:
    """The same samples in the same order are dealt to other steps."""
    _steps(lambda found: [found[0][:-1], [found[0][-1], *found[1]], *found[2:]])


def _steps(change: Callable[[Any], Any]) -> None:
    """The samples of the steps are others."""
    from ragtune.stages.context import Context

    original = Context.steps.func  # type: ignore[attr-defined]
    Context.steps.func = lambda self: change(original(self))  # type: ignore[attr-defined]


def drift_at_step(step: int) -> None:
    """A weight of the adapter differs by a single bit from then on."""
    from ragtune.training.trainer import PackedTrainer

    original = PackedTrainer._maybe_log_save_evaluate

    def save(self: Any, *given: Any, **more: Any) -> None:
        # Of the last step it is called twice.
        if self.state.global_step == step and self.control.should_log:
            import torch

            weights = next(p for p in self.model.parameters() if p.requires_grad).data
            weights.view(torch.int32).flatten()[0] ^= 1
        original(self, *given, **more)

    PackedTrainer._maybe_log_save_evaluate = save  # type: ignore[method-assign]


def abort_at_step(step: int, words: str) -> None:
    """A library in C++ ends the process, as NCCL's watchdog does."""

    def act(_: object) -> None:
        os.write(2, words.encode())
        os.abort()

    _at_step(step, act)


def write_at_step(step: int, words: str) -> None:
    """A library in C++ writes, as NCCL does with NCCL_DEBUG, and Python says something besides."""

    def act(_: object) -> None:
        for number in (1, 2):
            os.write(number, words.encode())
        sys.stdout.write("not to be seen\n")
        sys.stdout.flush()

    _at_step(step, act)


def note_writes(below: str, notes: str) -> None:
    """No fault: whatever Python changes in a folder is noted in a file elsewhere."""
    changing = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.utime", "os.chmod", "os.link",
                "os.symlink")  # fmt: skip

    def hear(event: str, given: tuple[Any, ...]) -> None:
        writes = event == "open" and given[2] & (os.O_WRONLY | os.O_RDWR)
        nothing = event == "os.mkdir" and Path(given[0]).is_dir()  # Trainer's folder is there
        if (writes or event in changing) and not nothing and str(given[0]).startswith(below):
            with Path(notes).open("a") as file:
                file.write(f"{event} {given}\n")

    sys.addaudithook(hear)


def other_version() -> None:
    from ragtune.stages import follow

    original = follow.versions
    follow.versions = lambda: original() | {"torch": "1.0"}


def other_device() -> None:
    """Its sums round otherwise."""
    from ragtune.stages import follow

    original = follow.own_device
    follow.own_device = lambda: original() | {"sums": "another processor"}


def spread_base() -> None:
    """No fault: a plan for several ranks has the base spread over them."""
    from dataclasses import replace

    from ragtune.stages import context

    original = context.make_plan

    def make_plan(*given: Any, **named: Any) -> Any:
        plan = original(*given, **named)
        return replace(plan, spread=plan.ranks > 1)

    context.make_plan = make_plan


def memory_in_layer(step: int, passes: str) -> None:
    """Memory runs out for two samples or more: behind the first layer, forwards or backwards."""
    from torch import nn

    from ragtune.training.trainer import PackedTrainer

    original = PackedTrainer.compute_loss

    def fail(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    def act(_module: object, _given: object, output: Any) -> None:
        if passes == "forward":
            fail()
        output.register_hook(fail)

    def compute(self: Any, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        hook = None
        samples = len(inputs["cu_seq_lens_q"]) - 1
        if model.training and self.state.global_step + 1 == step and samples > 1:
            lists = [m for m in model.modules() if isinstance(m, nn.ModuleList)]
            hook = lists[0][0].register_forward_hook(act)
        try:
            return original(self, model, inputs, *rest, **named)
        finally:
            if hook:
                hook.remove()

    PackedTrainer.compute_loss = compute  # type: ignore[method-assign]


def memory_for_answers(questions: int) -> None:
    """Memory does not do for the first layer's keys of more questions than these."""
    from ragtune.model.fast.cache import RaggedCache

    original = RaggedCache.update

    def update(self: Any, *given: Any, **named: Any) -> Any:
        if self.samples > questions:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return original(self, *given, **named)

    RaggedCache.update = update  # type: ignore[method-assign]


def memory_for_answers_and_in_layer(questions: int) -> None:
    memory_for_answers(questions)
    memory_in_layer(2, "forward")


def fp8_on_cpu() -> None:
    """No fault: a CPU's torch multiplies in 8 bits as a GPU's does."""
    from ragtune.model import hardware

    hardware._require_fp8 = lambda *_: None


def graphs_on_cpu(notes: str) -> None:
    """No fault: rows as CUDA graphs, as on a GPU on which they are worth it; what is replayed is noted."""
    from ragtune.training import graphs

    class Graph:
        def __init__(self, work: Callable[[], Any]) -> None:
            self.work, self.loss = work, work().clone()

        def replay(self) -> None:
            with Path(notes).open("a") as file:
                file.write(f"{os.getpid()}\n")
            self.loss.copy_(self.work())

    def capture(work: Callable[[], Any], *_: object) -> Any:
        made = Graph(work)
        return made, made.loss

    changes: dict[str, Any] = {
        "_has_graphs": lambda _: True, "_wait": lambda _: None, "_has_room": lambda _: True,
        "capture": capture, "_FASTER": 1e9, "_CAUGHT_UP": 1.0,
        "_behind_a_pause": lambda _, seconds, row: (row(), 0.0),
    }  # fmt: skip
    for name, value in changes.items():
        setattr(graphs, name, value)


def nf4_on_cpu(wrong: bool = False) -> None:
    """No fault: NF4 is computed without a GPU; but where it is spread, if it is to be wrong.

    Copied is as on a GPU: in float32, which has one NaN for all.
    """
    import torch
    from bitsandbytes.nn import modules

    from ragtune.model import hardware, spread

    def copy(to: Any, given: Any) -> None:
        for one, other in zip(to, given, strict=True):
            one.copy_(other.float() if other.is_floating_point() else other)

    torch._foreach_copy_ = copy
    modules.has_avx512bf16 = lambda: False  # a way of its own on some CPUs
    hardware._require_bitsandbytes = lambda *_: None
    original, made = spread.packed, []

    def packed(*given: Any) -> Any:
        found = original(*given)
        if len(made) > 3:  # those before are not spread
            found.weight.data.view(torch.uint8)[:1] ^= 1
        made.append(found)
        return found

    if wrong:
        spread.packed = packed


def spread_nf4(wrong: bool = False) -> None:
    nf4_on_cpu(wrong)
    spread_base()


def sharing_out(notes: str, leader: bool = False) -> None:
    """No fault: it is noted when a rank has weights of its own, which loading made; with a leader that says so."""
    from ragtune.model import spread

    original, used = spread._share_out, iter(range(0, 10**12, 10**9))

    def share_out(*given: Any) -> Any:
        with Path(notes).open("a", encoding="utf-8") as file:
            file.write("begins ")
            file.flush()
            time.sleep(0.3)
            found = original(*given)
            file.write("ends ")
        return found

    spread._share_out = share_out
    if leader:
        spread_base()
        spread._own_memory = lambda: next(used)


def older_torch(name: str, *given: Any) -> None:
    """torch has no method that lets FSDP forget a pass, as before 2.13; and another fault, or none."""
    from torch.distributed.fsdp import FSDPModule

    if hasattr(FSDPModule, "reset_iter_state"):
        del FSDPModule.reset_iter_state
    globals()[name](*given)


def killed_in_answer() -> None:
    """The process is killed when it is to answer its first question."""
    from ragtune.answering.ragged import Ragged

    Ragged.answer = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
