"""What bench/search.py tries: of each search the recipe that it begins with, and the points of its stages."""

from __future__ import annotations

import itertools

PROMPTS = "bench/prompts"
"""Templates, as a command finds them that is begun in the repository."""
FIRST = "data.max_passages=1 evaluate.orders=1"
"""The passage that was ranked first alone."""
READER = "READER"
"""Stands for what the reader's search trained in the end, with its first seed."""
ITSELF = "evaluate.refuse_below=null"
"""The model itself refuses, and no threshold."""
SEEDS = (42, 43, 44)
"""Of the best recipe, in the end."""
COMMON = [
    "lora.rank=128",
    "lora.alpha=128",
    "lora.dropout=0.05",
    "train.steps=null",
    "train.batch_size=16",
    "train.samples_per_row=auto",
    "train.log_every=100",
    "train.save_every=100000",
    "train.keep_checkpoints=1",
    "train.reorder_passages=true",
    "data.max_passages=3",
    "evaluate.limit=null",
    "evaluate.batch_size=auto",
]
"""Of all points. Passages in a new order in each epoch, as the place of the positive must not matter."""
_GRIDS: dict[str, dict[str, list[str]]] = {
    "reader": {
        "prompt": [
            "prompt.preset=aio train.epochs=1 train.learning_rate=2e-4",
            (
                f"prompt.preset=null prompt.template={PROMPTS}/both-sides.jinja,{PROMPTS}/titles.jinja "
                "train.epochs=1 train.learning_rate=2e-4"
            ),
        ],
        "tuning": [
            "train.epochs=2 train.learning_rate=4e-4",
            "train.epochs=2 tuning=full train.learning_rate=5e-5,1e-4",
        ],
        "reading": [
            f"train.epochs=1 prompt.template={PROMPTS}/each-passage.jinja,{PROMPTS}/twice.jinja",
            "train.epochs=1 prompt.quote=true evaluate.max_new_tokens=160",
        ],
        "data": [
            "train.epochs=3 data.redraw_negatives=null,5",
            "train.epochs=3 data.redraw_negatives=5 train.learning_rate=1e-4",
            "train.epochs=3 data.redraw_negatives=5 lora.dropout=0.15",
            "train.epochs=3 data.redraw_negatives=5 train.arguments.neftune_noise_alpha=5",
            "train.epochs=3 data.redraw_negatives=5 train.average_last=0.3",
        ],
        "longer": ["train.epochs=6", "train.epochs=6 lora.dropout=0.15"],
        "asking": [
            "train.epochs=3 evaluate.orders=3",
            "train.epochs=3 evaluate.orders=3 evaluate.copy=true",
        ],
        "levers": [
            "train.epochs=1 lora.rank=32 lora.alpha=32",
            "train.epochs=1 lora.init=pissa",
            "train.epochs=1 lora.dora=true",
            "train.epochs=1 lora.rslora=true lora.alpha=16",
            "train.epochs=1 train.lora_plus=4,16",
            "train.epochs=1 train.reorder_passages=false",
            "train.epochs=1 data.without_oracle=0.2",
            "train.epochs=1 data.refusal=答えはありません data.unanswerable=0.2",
        ],
    },
    "refuser": {
        "mix": [
            "data.unanswerable=0.5 train.epochs=3,6 train.learning_rate=2e-4",
            f"data.unanswerable=0.3,0.5 train.epochs=6 train.learning_rate=2e-4 {FIRST}",
            f"data.unanswerable=0.5 train.epochs=3 train.learning_rate=2e-4 {FIRST}",
            (
                f"data.unanswerable=0.5 train.epochs=6 train.learning_rate=2e-4 {FIRST} "
                f"prompt.template={PROMPTS}/refuse-each-passage.jinja"
            ),
            (
                "data.unanswerable=0.5 train.epochs=6 train.learning_rate=2e-4 data.max_passages=2 "
                "evaluate.orders=2"
            ),
        ],
        "start": [
            f"model.id={READER}",
            f"model.id={READER} train.learning_rate=1e-4",
            "train.learning_rate=1e-4",
            "train.learning_rate=4e-4",
            "lora.dropout=0.15",
            "tuning=full train.learning_rate=5e-5",
        ],
    },
}


def points_of(grid: str) -> list[str]:
    """Every combination of a grid's values."""
    tried = [
        [f"{key}={value}" for value in values.split(",")]
        for key, _, values in (change.partition("=") for change in grid.split())
    ]
    return [" ".join(one) for one in itertools.product(*tried)]


SEARCHES = {
    name: {
        stage: [point for grid in grids for point in points_of(grid)]
        for stage, grids in stages.items()
    }
    for name, stages in _GRIDS.items()
}
"""Of each search the stages, and of these the points: changes to the best recipe so far. Each is a sweep of its
own, so that some go on at a time, and one that fails leaves the others."""
BESIDE = {"levers": "prompt"}
"""Stages that are only looked at, and the one whose best recipe each changes: no other goes on from them. One
change for each point, over a single epoch. (An order as it was retrieved suits the evaluation, where the
positive mostly comes first, and makes its place matter: it is not to be chosen by exact match.)"""
BEGIN = {
    "reader": ("quickstart-ja.yaml", "jaquad_rag", ["evaluate.metric=strict_em"]),
    "refuser": (
        "refuse.yaml",
        "squad2_rag",
        [
            "data.unanswerable_from=real",
            "prompt.chat_template=plain",
            "publish.format=merged",
            "evaluate.orders=3",
            "evaluate.refuse_below=0",  # the threshold is chosen among all answers
        ],
    ),
}
"""The recipe, the data, and what is changed besides."""
TINY = ["train.steps=2", "train.batch_size=4", "evaluate.limit=12", "lora.rank=8", "lora.alpha=8"]
