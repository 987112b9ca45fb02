# SPDX-License-Identifier: GPL-2.0-or-later
"""Space on Docker's disk: checks whether a pull fits before it starts, and cleans up images and build cache.

A pull is measured by the sizes of its layers in the registry's manifest. If they are not known (the registry does not
tell, or the engine is on another machine), the pull goes ahead. Registries may count the question as a pull, so they
are asked only if less than PLENTY is free.

Volumes are never removed. The engine does not record since when an image has been unused, so a file does; it is
written only when that changes, at most once per clean-up.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.apply.ports import Engine, ImageEngine, Records, noting_errors
from agent.errors import EngineError, EngineUnreachableError, NoSpaceError, PathError, UcidockdError
from agent.files.atomic import atomic_write
from agent.files.user_paths import PATHS, Space, space_of
from agent.model.observed import ObservedImage
from agent.model.quantities import size_words
from agent.model.resources import Desired, PruneImages
from agent.model.updates import RESERVE, Layer, missing_layers, needed_bytes, parse_image
from agent.plan.prune import PruneLimits, cache_of, choose, is_named, needed_images, still_unused

if TYPE_CHECKING:
    from agent.engine.registry import RegistryClient

logger = logging.getLogger(__name__)

_MEASURED_MAX = 32  # images whose layers are remembered
# free bytes with which no image is asked for its size: that takes requests to a registry
PLENTY = 16 * 1024**3
_AGAIN_S = 0.5  # between looks whether another pull has ended, or this one is no longer wanted
# GET /info names architectures like uname; registries use other names
_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
    "i386": "386",
    "i686": "386",
}


@dataclass(slots=True, kw_only=True)
class PullSpace:
    """`client` returns a registry client. `freeable` returns the bytes that a clean-up would free. `sized`
    receives an image and its total download size in bytes. `free_at` measures free space at a path.
    """

    engine: Engine
    client: Callable[[], RegistryClient]
    freeable: Callable[[], int]
    sized: Callable[[str, int], None] = lambda image, size: None
    free_at: Callable[[str], Space] = lambda path: PATHS.ask(space_of, path)
    _taken: dict[object, int] = field(default_factory=dict)  # by the pulls in progress
    # image and platform -> digest and layers, until the pull: one that does not fit is tried again and again
    _measured: dict[tuple[str, str], tuple[str, list[Layer]]] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @contextmanager
    def for_pull(self, image: str, platform: str, check: Callable[[], None]) -> Iterator[None]:
        """Wraps a pull of `image` for `platform` ("": the engine's). Calls `check` while it waits for other pulls.

        Raises NoSpaceError if the image would not fit even alone, and what `check` raises.
        """
        need = self._need(image, platform)
        # without the size from the registry, pull anyway: the engine reports a full disk
        if need is None:
            yield
            return
        mine = object()
        self._take(mine, image, need, check)
        self._measured.pop((image, platform), None)
        try:
            yield
        finally:
            # also after a failed pull: the engine frees the space that it had taken
            with self._changed:
                del self._taken[mine]
                self._changed.notify_all()

    def foresee(self, image: str, platform: str, frees: int) -> str:
        """Checks a pull for which `frees` bytes will be freed first; returns the image's digest in its registry.

        Raises EngineError if the registry does not answer, NoSpaceError if the image would not fit.
        """
        from agent.engine.registry import RegistryError  # late, because few pulls need it

        try:
            with self.client() as client:
                digest, layers = self._measure(client, image, platform)
        except RegistryError as exc:
            raise EngineError(
                f"{image} cannot be pulled now, so nothing is removed: {exc}", retryable=True
            ) from exc
        need, free = needed_bytes(layers), self._free()
        if free is not None and need + RESERVE > free + frees:
            raise self._no_space(image, need, free + frees)
        self._measured.pop((image, platform), None)
        return digest

    def _take(self, mine: object, image: str, need: int, check: Callable[[], None]) -> None:
        """Reserves space for a pull. Other pulls count in full, since it is not known how much they have
        written already.
        """
        with self._changed:
            while (free := self._free()) is not None and need + sum(self._taken.values()) + RESERVE > free:
                # no other pull is in progress that could end and need less than it reserved
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
            logger.info("how much a clean-up would free is not known: %s", exc)
            return NoSpaceError(text)
        return NoSpaceError(f"{text}. `ucidockd prune --images unused` would free {size_words(gives)}")

    def _free(self) -> int | None:
        """Free bytes at the engine's data root, None if that cannot be measured."""
        try:
            return self.free_at(self.engine.identity().root).free
        except (EngineError, PathError) as exc:
            logger.info("free space is not known: %s", exc)
            return None

    def _need(self, image: str, platform: str) -> int | None:
        """The peak need of the pull in bytes; None if there is plenty of space, or the size is not known."""
        free = self._free()
        if free is None or free >= PLENTY:
            return None
        layers = self._layers(image, platform)
        if layers is None:
            return None
        self.sized(image, sum(layer.size for layer in layers))
        need = needed_bytes(layers)
        if need + RESERVE > free:
            # layers that other images have are not pulled again; only checked now, because it takes a call per image
            bodies = [self.engine.inspect_image(each.id) for each in self.engine.list_images()]
            local = [
                list((body.get("RootFS") or {}).get("Layers") or ()) for body in bodies if body is not None
            ]
            need = needed_bytes(missing_layers(layers, local))
        return need

    def _layers(self, image: str, platform: str) -> list[Layer] | None:
        from agent.engine.registry import RegistryError  # late, because few pulls need it

        try:
            with self.client() as client:
                return self._measure(client, image, platform)[1]
        except (RegistryError, EngineError) as exc:
            logger.info("the size of %s is not known: %s", image, exc)
            return None

    def _measure(self, client: RegistryClient, image: str, platform: str) -> tuple[str, list[Layer]]:
        """The digest and the layers of an image. Raises RegistryError, EngineError."""
        name = parse_image(image)
        known = self._measured.get((image, platform))
        # asking for the digest alone does not count as a pull
        if known is not None and known[0] == (name.digest or client.ask(name).digest):
            return known
        digest, found = client.layers(name, platform or self._platform())
        measured = (digest, [Layer(*each) for each in found])
        if len(self._measured) >= _MEASURED_MAX:
            self._measured.clear()
        self._measured[image, platform] = measured
        return measured

    def _platform(self) -> str:
        info = self.engine.info()
        architecture = str(info.get("Architecture") or "")
        return f"{info.get('OSType') or 'linux'}/{_ARCHITECTURES.get(architecture, architecture)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneRequest:
    """`enough`: the missing bytes; the longest unused images are removed until that much is freed."""

    images: PruneImages
    older_s: float = 0.0
    build_cache: bool = False
    enough: int | None = None
    dry_run: bool = False


@dataclass(slots=True, kw_only=True)
class Pruner:
    """`desired` is read again before each removal, because a section may have been added meanwhile."""

    engine: ImageEngine
    records: Records
    desired: Callable[[], Desired]
    memory: Path
    now: Callable[[], float]
    _named: dict[str, str] | None = None  # the images that sections name, at the last look
    _ids: dict[str, str] = field(default_factory=dict)

    def run(self, request: PruneRequest) -> dict[str, Any]:
        """Removes images and build cache, or previews it: what is removed, with bytes and names, and what is kept and
        why. Raises EngineError.
        """
        failed: dict[str, str] = {}
        images = self.engine.list_images()
        needed, used = self._needed(images), self.engine.list_image_users()
        known = self._remembered()
        unused_since = still_unused(known, images, {*needed, *used}, self.now())
        if not request.dry_run and unused_since != known:
            with contextlib.suppress(OSError):  # a full disk is a reason to prune: go on
                self.memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                atomic_write(self.memory, json.dumps({"unused_since": unused_since}).encode(), mode=0o600)
        choice = choose(
            images,
            needed=needed,
            used=used,
            unused_since=unused_since,
            limits=PruneLimits(images=request.images, older_s=request.older_s, enough=request.enough),
            now=self.now(),
        )
        cache: tuple[dict[str, Any], ...] = ()
        if request.build_cache:
            with noting_errors("build cache", failed):
                cache = self.engine.list_build_cache()
        old = cache_of(cache, older=self.now() - request.older_s)
        cache_bytes = sum(int(entry.get("Size") or 0) for entry in old)
        # a build leaves its steps as unnamed images, which are removed with the built image
        parents = {image.parent for image in images}
        removed: Sequence[ObservedImage] = choice.going
        if not request.dry_run:
            removed = self._remove(images, choice.going, failed)
            if old:
                try:
                    cache_bytes = self.engine.prune_build_cache(request.older_s)
                    logger.info("build cache: %s are removed", size_words(cache_bytes))
                except EngineUnreachableError:
                    raise
                except EngineError as exc:
                    cache_bytes, failed["build cache"] = 0, str(exc)
                    logger.warning("the build cache cannot be cleaned up: %s", exc)
        return {
            "dry_run": request.dry_run,
            "images": request.images.value,
            "older_s": request.older_s,
            "bytes": sum(image.own for image in removed) + cache_bytes,
            "going": [_shown(image) for image in removed if _is_told(image, parents)],
            "kept": [{**_shown(image), "why": why} for image, why in choice.kept if _is_told(image, parents)],
            "build_cache": {"bytes": cache_bytes, "entries": len(old)},
            "failed": [{"name": name, "error": why} for name, why in failed.items()],
        }

    def _needed(self, images: Iterable[ObservedImage]) -> dict[str, str]:
        """Image id -> why it is kept. An image that the engine does not have is left out; one that the engine has but
        cannot inspect is kept by its name in the list.
        """
        named = needed_images(self.desired(), self.records.records())
        if named != self._named:
            # cached, because it is needed before each removal and costs a call for each image
            found, unseen = dict[str, str](), dict[str, str]()
            for name, why in named.items():
                with noting_errors(name, unseen):
                    body = self.engine.inspect_image(name)
                    if body is not None:
                        found[str(body["Id"])] = why
            for name, trouble in unseen.items():
                logger.warning("image %s cannot be looked at, and is kept: %s", name, trouble)
                found |= {image.id: named[name] for image in images if is_named(image, name)}
            self._ids, self._named = found, named
        return self._ids

    def _remove(
        self, images: Iterable[ObservedImage], going: Iterable[ObservedImage], failed: dict[str, str]
    ) -> list[ObservedImage]:
        removed = []
        for image in going:
            try:
                # a section or a container may have been added since the choice
                if image.id in self._needed(images) or image.id in self.engine.list_image_users():
                    continue
                # the names first: the engine refuses to remove an image by its id while it has several names
                for name in (*image.tags, *image.digests, image.id):
                    self.engine.remove_image(name)
            except EngineUnreachableError:
                raise
            except EngineError as exc:
                failed[image.title] = str(exc)
                logger.warning("image %s cannot be removed: %s", image.title, exc)
            else:
                removed.append(image)
                logger.info("image %s is removed: nothing needs it (%s)", image.title, size_words(image.own))
        return removed

    def _remembered(self) -> dict[str, float]:
        """Since when images are unused, by the file. An invalid file counts as empty: images are then only kept longer."""
        try:
            found = json.loads(self.memory.read_bytes())["unused_since"]
            return {str(name): float(at) for name, at in found.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return {}


def _is_told(image: ObservedImage, parents: Collection[str]) -> bool:
    """Whether the image is listed: a build's intermediate images are not, because they are removed with the built image."""
    return bool(image.tags or image.digests) or image.id not in parents


def _shown(image: ObservedImage) -> dict[str, Any]:
    return {
        "id": image.id,
        "names": list(image.tags or image.digests),
        "bytes": image.own,
        "size": image.size,
    }
