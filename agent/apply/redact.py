# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes secrets out of errors: the engine's messages may echo what they were sent, and errors go to logs and status."""

from __future__ import annotations

from agent.errors import UcidockdError
from agent.model.identity import is_secret_name
from agent.model.resources import Container

_SHORTEST = 4  # "1" or "yes" is no secret, and to blot it out would spoil the message


def without_secrets(error: UcidockdError, container: Container | None) -> UcidockdError:
    """The same error, with the environment values and tokens of the container that it is about blotted out."""
    if container is not None:
        error.args = tuple(_blot(str(word), _secrets(container)) for word in error.args)
    return error


def blotted(text: str, container: Container | None) -> str:
    """`text` without the secrets of the container that it is about."""
    return text if container is None else _blot(text, _secrets(container))


def _secrets(container: Container) -> list[str]:
    spec = container.spec
    values = [value for _, value in spec.env]
    values += [value for name, value in spec.log_opts if is_secret_name(name)]
    return sorted({value for value in values if len(value) >= _SHORTEST}, key=len, reverse=True)


def _blot(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
