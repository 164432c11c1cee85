"""What the Hub says of a model beside its files."""

from __future__ import annotations

import os
from typing import Any

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.secrets import HIDDEN, STRANGE_TOKEN, TOKEN_ADVICE
from ragtune.model.safety import see_repository

_CACHED = "With the model in the cache, --offline asks nobody."
_SERVERS_FAULT = 500
_ADVICE = {
    401: "The token is wrong or has expired: run `hf auth login`, or set HF_TOKEN.",
    403: "This token may not read it: run `hf auth login` with one that may.",
    429: "The Hub limits the rate: wait some minutes.",
}


def model_facts(name: str, revision: str | None) -> tuple[str | None, bool]:
    """A model's licence, if its page names one, and whether it is gated.

    Raises:
        UsageError: there is no such model, or this token may not read it, or its files are none that
            are loaded: pickles, or an adapter among them.
        RagtuneError: the Hub can't be asked, or answers no sense.
    """
    from huggingface_hub import HfApi, errors

    transport_error = errors.HTTPError  # type: ignore[attr-defined]
    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    try:
        found = hub.model_info(name, revision=revision, timeout=20)
        files = {one.rfilename for one in found.siblings or ()}
        card = found.card_data
        licence = getattr(card, "license_name", None) or getattr(card, "license", None)
        facts = (str(licence) if licence else None), bool(found.gated)
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
    except errors.HfHubHTTPError as error:
        raise refused(name, error) from error
    except (transport_error, OSError) as error:
        raise RagtuneError(
            f"The Hub can't be asked for {name}: {type(error).__name__}.",
            f"Check the network. {_CACHED}",
        ) from error
    # What is raised while an answer is read that holds something other than it should.
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise RagtuneError(
            f"The Hub's answer about {name} makes no sense: {type(error).__name__}.",
            f"Try again later; if HF_ENDPOINT is set, see that a Hub is there. {_CACHED}",
        ) from error
    if found.siblings is not None:
        see_repository({file for file in files if "/" not in file}, name)
    return facts


def refused(name: str, error: Any) -> RagtuneError:
    """What to say of an answer with a code that is none of the model's own."""
    code, said = error.response.status_code, _line(error.server_message or str(error))
    advice = _ADVICE.get(code, "")
    if code >= _SERVERS_FAULT:
        advice = "The Hub has a problem: try again later."
    return RagtuneError(
        f"The Hub can't be asked for {name}: it answers {code}, {said.rstrip('.')}.",
        f"{advice} {_CACHED}".strip(),
    )


def _line(text: str) -> str:
    """The first line of what the Hub says, without the token that it may repeat."""
    from huggingface_hub import get_token

    return (text.strip().splitlines() or [""])[0].replace(get_token() or "\0", HIDDEN)
