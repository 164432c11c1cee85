"""What the Hub says of a model beside its files."""

from __future__ import annotations

from huggingface_hub import errors

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.secrets import STRANGE_TOKEN, TOKEN_ADVICE
from ragtune.base.web.hub import api
from ragtune.base.web.refusals import SENSELESS, HTTPError, explain
from ragtune.model.safety import require_safe_repository


def model_facts(name: str, revision: str | None) -> tuple[str | None, bool]:
    """A model's licence, if its page names one, and whether it is gated.

    Raises:
        UsageError: there is no such model, or this token may not read it, or its files are none that
            are loaded: pickles, or an adapter among them.
        RagtuneError: the Hub can't be asked, or answers no sense.
    """
    try:
        found = api().model_info(name, revision=revision, timeout=20)
        files = {one.rfilename for one in found.siblings or ()}
        card = found.card_data
        licence = getattr(card, "license_name", None) or getattr(card, "license", None)
        facts = (str(licence) if licence else None), bool(found.gated)
    except errors.RevisionNotFoundError:
        raise UsageError(f"model.revision: {name} has no {revision}.") from None
    except UnicodeEncodeError:
        raise UsageError(STRANGE_TOKEN, TOKEN_ADVICE) from None
    except (HTTPError, OSError, ValueError, *SENSELESS) as error:
        raise refused(name, error) from error
    if found.siblings is not None:
        require_safe_repository({file for file in files if "/" not in file}, name)
    return facts


def refused(name: str, error: BaseException) -> RagtuneError:
    """What to say when a model can't be looked up: it is gated or not there, or the Hub says why."""
    if isinstance(error, errors.GatedRepoError):
        return UsageError(
            f"model.id: {name} is gated, and this token may not read it.",
            f"Accept its terms on its page, https://huggingface.co/{name}, then `hf auth login`.",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return UsageError(
            f"model.id: the Hub has no model {name}, or this token may not see it.",
            "Check the name; for a private model run `hf auth login`.",
        )
    reason, advice = explain(error, name, writing=False)
    return RagtuneError(
        f"model.id: {name} can't be looked up. {reason}",
        f"{advice} With the model in the cache, --offline asks nobody.".strip(),
    )
