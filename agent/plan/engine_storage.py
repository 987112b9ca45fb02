# SPDX-License-Identifier: GPL-2.0-or-later
"""Which store of images dockerd will use, and whether it can work on the file system of its data_root. Pure.

Read in moby: daemon/graphdriver (up to 28), daemon/image_store_choice.go (29), graphdriver.HasPriorDriver.
"""

from __future__ import annotations

from collections.abc import Collection

from agent.model.dockerd.settings import Document
from agent.model.dockerd.table import Version, value_at

CONTAINERD_DEFAULT = (
    29,
    0,
)  # the first version that keeps images in containerd's store unless told otherwise
# drivers of dockerd itself; the version that no longer has it
_GONE = {"aufs": (24, 0), "overlay": (24, 0), "devicemapper": (25, 0)}
GRAPH_DRIVERS = frozenset({"overlay2", "vfs", "fuse-overlayfs", "btrfs", "zfs", *_GONE})
_CONTAINERD_ONLY = frozenset({"native", "overlayfs"})
_BY_OVERLAY = frozenset({"overlay", "overlay2", "overlayfs"})
# file systems that cannot be the upper layer of an overlay (kernel, fs/overlayfs; overlay on overlay: tried)
_NO_UPPER = frozenset({"overlay", "aufs", "nfs", "nfs4", "cifs", "smb3", "9p", "ecryptfs", "fuse"})
_NO_UNIX = frozenset({"vfat", "msdos", "exfat", "ntfs", "ntfs3"})  # neither owners nor links: no driver works
_STORE = "features.containerd-snapshotter"


def driver_trouble(values: Document, version: Version, prior: Collection[str] = ()) -> str:
    """Why this dockerd does not have the storage driver that is asked for; "" when it does."""
    driver = str(values.get("storage-driver") or "")
    gone = _GONE.get(driver)
    if gone is not None and version >= gone:
        return (
            f"dockerd has no storage driver {driver} from {gone[0]}.{gone[1]} on; its images and containers are not"
            " found by another one; expected overlay2, or no storage_driver"
        )
    if driver in _CONTAINERD_ONLY and not by_containerd(values, version, prior):
        return (
            f"{driver} is one of containerd's image store; expected `option containerd_snapshotter '1'` beside it"
            f" (Docker 23 or newer), or {'vfs' if driver == 'native' else 'overlay2'}"
        )
    if driver in GRAPH_DRIVERS - {"btrfs", "zfs", "fuse-overlayfs"} and value_at(values, _STORE) is True:
        return f"containerd's image store has no driver {driver}; expected overlayfs, native, or no storage_driver"
    return ""


def by_containerd(values: Document, version: Version, prior: Collection[str]) -> bool:
    """Whether images will be kept in containerd's store. `prior`: drivers that have left data in data_root."""
    said = value_at(values, _STORE)
    if isinstance(said, bool) and version >= (23, 0):
        return said
    driver = str(values.get("storage-driver") or "")
    if version < CONTAINERD_DEFAULT or values.get("userns-remap") or set(prior) & GRAPH_DRIVERS:
        return False
    return driver not in GRAPH_DRIVERS


def store_trouble(
    document: Document, version: Version, *, file_system: str, prior: Collection[str] = ()
) -> str:
    """Why no container can be made on this file system, and what to do about it; "" when that is not known.

    A dockerd of its own choice up to 28, and one without containerd's store, takes vfs where overlay cannot work.
    """
    root = str(document.get("data-root") or "/var/lib/docker")
    if file_system.startswith("fuse"):
        file_system = "fuse"
    if file_system in _NO_UNIX:
        return (
            f"{root} is on {file_system}, which has no owners and no links: no container can run there; format the disk"
            " as ext4 or f2fs, or set data_root to one that is"
        )
    driver = str(document.get("storage-driver") or "")
    containerd = by_containerd(document, version, prior)
    if file_system not in _NO_UPPER or not (driver in _BY_OVERLAY or (containerd and not driver)):
        return ""
    name = driver or "overlayfs"
    copies = "native" if containerd else "vfs"
    return (
        f"{root} is on {_named(file_system)}, on which dockerd's storage driver {name} cannot mount: images load, and no"
        f" container can be made; mount a disk with ext4 or f2fs and set data_root to it, or set storage_driver '{copies}',"
        " which copies every layer whole and takes much more space"
    )


def _named(file_system: str) -> str:
    return (
        "OpenWrt's overlay of the flash"
        if file_system == "overlay"
        else f"a file system of type {file_system}"
    )
