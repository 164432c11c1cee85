"""What the Hub says of a model beside its files."""

from __future__ import annotations

import os

from ragtune.errors import RagtuneError, UsageError
from ragtune.model.unsafe import see_repository
from ragtune.tokens import STRANGE_TOKEN, TOKEN_ADVICE


def model_facts(name: str, revision: str | None) -> tuple[str | None, bool]:
    """A model's licence, if its page names one, and whether it is gated.

    Raises:
        UsageError: there is no such model, or this token may not read it, or its files are none that
            are loaded: pickles, or an adapter among them.
        RagtuneError: the Hub can't be asked.
    """
    from huggingface_hub import HfApi, errors

    transport_error = errors.HTTPError  # type: ignore[attr-defined]
    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    try:
        found = hub.model_info(name, revision=revision, timeout=20)
    except errors.GatedRepoError:
        raise UsageError(
            f"model.id: {name} is gated, and this token may not read it.",
            f"Accept its terms on its page, https://huggingface.co/{name}, then `hf auth login`.",
        ) from None
    except errors.RepositoryNotFoundError:
        raise UsageError(
            f"model.id: the Hub has no model {name}, or this token may not see it.",
            "Check the name; for a private model run `hf auth login`.",
        ) from None
    except errors.RevisionNotFoundError:
        raise UsageError(f"model.revision: {name} has no {revision}.") from None
    except UnicodeEncodeError:
        raise UsageError(STRANGE_TOKEN, TOKEN_ADVICE) from None
    except (transport_error, OSError) as error:
        raise RagtuneError(
            f"The Hub can't be asked for {name}: {type(error).__name__}.",
            "Check the network; with the model in the cache, --offline asks nobody.",
        ) from error
    if found.siblings is not None:
        see_repository({s.rfilename for s in found.siblings if "/" not in s.rfilename}, name)
    card = found.card_data
    licence = getattr(card, "license_name", None) or getattr(card, "license", None)
    return (str(licence) if licence else None), bool(found.gated)
