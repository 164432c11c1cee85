"""A model's generation settings: what of generation_config.json can't be followed, and where answers end."""

from __future__ import annotations

from pathlib import Path

from transformers import GenerationConfig, PreTrainedModel

from ragtune.base.errors import UsageError
from ragtune.base.text import shortened
from ragtune.data.encode import Encoder
from ragtune.model.configuration import require_sane
from ragtune.model.safety import model_json

GENERATION = "generation_config.json"
CORRECT = f"Correct {GENERATION} in the model's folder, or take it away: its settings are followed."
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
_TEXTS = {
    "cache_implementation",
    "custom_generate",
    "early_stopping",
    "stop_strings",
    "transformers_version",
}
_MOST = 2**31


def require_settings(folder: Path) -> tuple[int, ...]:
    """Require that a model's generation settings can be followed; transformers passes over damaged ones.

    Args:
        folder: of the model.

    Returns:
        The tokens that end an answer by them.

    Raises:
        UsageError: the file is damaged, or a value is of the wrong kind.
    """
    file = folder / GENERATION
    if not file.exists():
        return ()
    values = model_json(file)
    require_sane(values, str(folder), GENERATION)
    known = vars(GenerationConfig()).keys() - _TEXTS
    for key, value in values.items():
        what = f"model.id: {GENERATION} of {folder}: {key} is {shortened(repr(value))}"
        if key in _TOKENS:
            for one in value if isinstance(value, list) and key != "pad_token_id" else [value]:
                if not (one is None or (type(one) is int and -1 <= one < _MOST)):
                    raise UsageError(f"{what}, and no token's id.", CORRECT)
        elif key in known and not key.startswith("_") and isinstance(value, str):
            raise UsageError(f"{what}, a text where none belongs.", CORRECT)
    ends = values.get("eos_token_id")
    return tuple(i for i in (ends if isinstance(ends, list) else [ends]) if isinstance(i, int))


def stop_generation_at(model: PreTrainedModel, encoder: Encoder) -> None:
    """Let a model's generation settings end at the trained stop token as well as at its own."""
    own = model.generation_config.eos_token_id
    own = [] if own is None else own if isinstance(own, list) else [own]
    ends = sorted({encoder.stop_id, *own})
    model.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]
    model.generation_config.pad_token_id = encoder.tokenizer.pad_token_id
