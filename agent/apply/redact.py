# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes secrets out of errors: the engine's messages may echo what they were sent, and errors go to logs and status."""

from __future__ import annotations

from agent.errors import UcidockdError
from agent.model.resources import Container
from agent.model.secrets import blotter, is_secret_name


def without_secrets(error: UcidockdError, container: Container | None) -> UcidockdError:
    """The same error without secrets, the environment values and tokens of the container that it is about among them."""
    error.args = tuple(blotted(str(word), container) for word in error.args)
    return error


def blotted(text: str, container: Container | None) -> str:
    """`text` without secrets, those of the container that it is about among them."""
    return blotter(_secrets(container) if container is not None else ())(text)


def _secrets(container: Container) -> list[str]:
    spec = container.spec
    values = [value for _, value in spec.env]
    values += [value for name, value in (*spec.log_opts, *spec.labels) if is_secret_name(name)]
    return values
