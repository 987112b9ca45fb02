# SPDX-License-Identifier: GPL-2.0-or-later
"""A registry behind a front that counts requests, and images that are pushed there from a box's engine."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from tests.support.box import Box
from tests.support.dockerd import BUSYBOX
from tests.support.registry import Registry
from tests.support.registry_front import Front


class Store:
    """`close` also removes everything from the engine except busybox."""

    def __init__(self, box: Box, folder: Path) -> None:
        self.box = box
        self.registry = Registry(folder)
        self.front = Front(self.registry.port)

    def publish(self, name: str, words: str, *, noise: bytes = b"", base: str = BUSYBOX) -> str:
        """Pushes a new image under the tag, and leaves nothing of it on the engine. Returns the reference.

        `noise`: content of a layer on top of `base`.
        """
        client, there = self.box.client, f"{self.registry.address}/{name}"
        made = client.containers.create(base, "true")
        if noise:
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w") as tar:
                entry = tarfile.TarInfo("noise")
                entry.size = len(noise)
                tar.addfile(entry, io.BytesIO(noise))
            made.put_archive("/", packed.getvalue())
        made.commit(there, "1", changes=[f"LABEL words={words}"])
        made.remove()
        for line in client.api.push(there, "1", stream=True, decode=True):
            assert "error" not in line, line
        client.images.remove(f"{there}:1")
        return f"{self.front.address}/{name}:1"

    def close(self) -> None:
        self.box.clean()
        self.front.close()
        self.registry.close()
        for image in self.box.client.images.list():
            if BUSYBOX not in image.tags:
                self.box.client.images.remove(str(image.id), force=True)
