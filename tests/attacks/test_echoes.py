# SPDX-License-Identifier: GPL-2.0-or-later
"""What we gave to others as a secret, and they repeat: a registry, a command in a container, of a backup or a notice."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent.apply.failures import redacted
from agent.apply.images import Images
from agent.data.targets import CommandTarget
from agent.errors import DataError, EngineError, NoticeError
from agent.model.notices import Event, News, NotifySection
from agent.model.resources import Container, ContainerPolicy, ContainerSpec, RegistryAuth
from agent.notices.channels import send

SECRET = "plainly-hunter22"  # neither its form nor what stands around it tells


class EchoingEngine:
    """Repeats the login as a registry may that logs what it refuses."""

    def inspect_image(self, reference: str) -> dict[str, Any] | None:
        del reference
        return None

    def ping(self) -> tuple[int, int]:
        return (1, 43)

    def pull(self, image: str, auth: RegistryAuth, *rest: object, platform: str) -> None:
        del rest, platform
        header = base64.b64encode(f"{auth.username}:{auth.password}".encode()).decode()
        raise EngineError(f"{image}: no such account {auth.password} ({header})", status=500)


def test_a_registry_that_repeats_the_login() -> None:
    auth = RegistryAuth(server="registry.lan", username="u", password=SECRET)
    images = Images(engine=EchoingEngine(), auths=(auth,))  # type: ignore[arg-type]
    container = Container(section="web", name="web", spec=ContainerSpec(image="registry.lan/app:1"))
    with pytest.raises(EngineError) as caught:
        images.ensure(container)
    assert str(caught.value) == "registry.lan/app:1: no such account *** (***)"


@pytest.mark.parametrize("option", ["pre_stop", "post_start", "hold_cmd"])
def test_a_command_in_a_container_that_repeats_its_password(option: str) -> None:
    hook = ("dump", "--password", SECRET)
    container = Container(
        section="web",
        name="web",
        spec=ContainerSpec(image="a"),
        policy=ContainerPolicy(**{option: hook}),  # type: ignore[arg-type]
    )
    assert redacted(f"access denied for {SECRET}", container) == "access denied for ***"


async def test_a_backups_command_that_repeats_its_password() -> None:
    async def nothing() -> AsyncIterator[bytes]:
        yield b""

    with pytest.raises(DataError) as caught:
        await CommandTarget(f"P=x; echo refused: {SECRET}; : --password {SECRET}; exit 4").take(
            "v", "f", nothing(), {}
        )
    assert SECRET not in str(caught.value) and "refused" in str(caught.value)


def test_a_notices_command_that_repeats_its_password() -> None:
    script = "echo refused: $3 $2 >&2; exit 1"
    section = NotifySection(
        section="n", type="exec", command=("/bin/sh", "-c", script, "x", "y", "--token", SECRET)
    )
    with pytest.raises(NoticeError) as caught:
        send(section, News(event=Event.TEST))
    assert SECRET not in str(caught.value) and "refused" in str(caught.value)
