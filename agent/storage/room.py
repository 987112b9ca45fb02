# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a pull fits on Docker's disk, before it is begun: from the sizes of its layers, by the registry's manifest.

Where that cannot be known, as when the registry does not tell or the engine is on another machine, a pull is made as if it
fitted. Registries may count the question as a pull, so it is only asked while less than PLENTY is free.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.apply.ports import Engine
from agent.errors import EngineError, NoSpaceError, PathError, UcidockdError
from agent.files.user_paths import PATHS, Space, space_of
from agent.model.quantities import size_words
from agent.model.updates import parse_image
from agent.plan.updates import RESERVE, Layer, missing_layers, needed_bytes

if TYPE_CHECKING:
    from agent.engine.registry import RegistryClient

logger = logging.getLogger(__name__)

PLENTY = 16 * 1024**3
_AGAIN_S = 0.5
# what GET /info calls an architecture (uname), and what registries do
_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
    "i386": "386",
    "i686": "386",
}


@dataclass(slots=True, kw_only=True)
class Room:
    """`client` gives one for the registries. `freeable`: bytes that a clean-up would give back. `sized` hears what an
    image downloads in all, in bytes. `free_at` looks at a path.
    """

    engine: Engine
    client: Callable[[], RegistryClient]
    freeable: Callable[[], int]
    sized: Callable[[str, int], None] = lambda image, size: None
    free_at: Callable[[str], Space] = lambda path: PATHS.ask(space_of, path)
    _taken: dict[object, int] = field(default_factory=dict)  # by the pulls under way
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @contextmanager
    def for_pull(self, image: str, platform: str, check: Callable[[], None]) -> Iterator[None]:
        """Around a pull of `image` for `platform` ("": the engine's). `check` is called while other pulls are waited for.

        Raises NoSpaceError where it would not fit even alone, and what `check` raises.
        """
        need = self._need(image, platform)
        # A registry that does not say how large the image is must not keep it from being pulled: the engine tells when
        # the disk is full.
        if need is None:
            yield
            return
        mine = object()
        self._take(mine, image, need, check)
        try:
            yield
        finally:
            # Also where the pull failed: what it had taken is given back by the engine.
            with self._changed:
                del self._taken[mine]
                self._changed.notify_all()

    def foresee(self, image: str, platform: str, frees: int) -> str:
        """Before room is made by removing what takes `frees` bytes: the digest that the image's registry has.

        Raises EngineError where it does not give it, NoSpaceError where it would not fit."""
        from agent.engine.registry import RegistryError  # few pulls need it

        try:
            with self.client() as client:
                name = parse_image(image)
                digest = name.digest or client.ask(name).digest
                found = client.layers(name, platform or self._platform())
        except RegistryError as exc:
            raise EngineError(
                f"{image} cannot be pulled now, so nothing is removed: {exc}", retryable=True
            ) from exc
        need, free = needed_bytes([Layer(*each) for each in found]), self._free()
        if free is not None and need + RESERVE > free + frees:
            raise self._no_space(image, need, free + frees)
        return digest

    def _take(self, mine: object, image: str, need: int, check: Callable[[], None]) -> None:
        """What others have taken counts in full: how much of it is on the disk by now is not known."""
        with self._changed:
            while (free := self._free()) is not None and need + sum(self._taken.values()) + RESERVE > free:
                if not self._taken:
                    raise self._no_space(image, need, free)
                check()
                self._changed.wait(_AGAIN_S)
            self._taken[mine] = need

    def _no_space(self, image: str, need: int, free: int) -> NoSpaceError:
        root, missing = self.engine.identity().root, need + RESERVE - free
        text = (
            f"cannot pull {image}: it needs {size_words(need)} at {root} beside {size_words(RESERVE)} that stay free, and"
            f" {size_words(free)} are free: {size_words(missing)} are missing"
        )
        try:
            gives = self.freeable()
        except UcidockdError as exc:
            logger.info("what a clean-up would give is not known: %s", exc)
            return NoSpaceError(text)
        return NoSpaceError(f"{text}. `ucidockd prune --images unused` would free {size_words(gives)}")

    def _free(self) -> int | None:
        """Bytes at the engine's data root, None where they cannot be looked at."""
        try:
            return self.free_at(self.engine.identity().root).free
        except (EngineError, PathError) as exc:
            logger.info("free space is not known: %s", exc)
            return None

    def _need(self, image: str, platform: str) -> int | None:
        """Bytes at its peak, None where there is plenty or they are not known."""
        free = self._free()
        if free is None or free >= PLENTY:
            return None
        layers = self._layers(image, platform)
        if layers is None:
            return None
        self.sized(image, sum(layer.size for layer in layers))
        need = needed_bytes(layers)
        if need + RESERVE > free:
            # layers that other images have are not pulled again; asked for only now, as it is a call for each image
            bodies = [self.engine.inspect_image(each.id) for each in self.engine.list_images()]
            local = [
                list((body.get("RootFS") or {}).get("Layers") or ()) for body in bodies if body is not None
            ]
            need = needed_bytes(missing_layers(layers, local))
        return need

    def _layers(self, image: str, platform: str) -> list[Layer] | None:
        from agent.engine.registry import RegistryError  # few pulls need it

        try:
            with self.client() as client:
                found = client.layers(parse_image(image), platform or self._platform())
        except (RegistryError, EngineError) as exc:
            logger.info("the size of %s is not known: %s", image, exc)
            return None
        return [Layer(*each) for each in found]

    def _platform(self) -> str:
        info = self.engine.info()
        architecture = str(info.get("Architecture") or "")
        return f"{info.get('OSType') or 'linux'}/{_ARCHITECTURES.get(architecture, architecture)}"
