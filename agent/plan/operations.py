# SPDX-License-Identifier: GPL-2.0-or-later
"""Operations, and the plan made of them.

`reconcile` creates operations; `agent.apply.executor` carries them out and decides nothing itself. Every operation
states its cause. `ReplaceContainer` takes several engine calls, which are the steps in `agent.apply.swap`.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.errors import Reason
from agent.model.observed import ObservedContainer, ObservedNetwork, ObservedVolume, Record
from agent.model.resources import Container, Network, Volume
from agent.plan.container.changes import OptionChange


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """The base of all operations: which resource it acts on, and why.

    `changes`: the changed options that cause it; `besides`: the part of the cause that is not about options.
    """

    key: str
    cause: str
    changes: tuple[OptionChange, ...] = ()
    besides: str = ""

    @property
    def verb(self) -> str:
        name = type(self).__name__
        for kind in ("Container", "Network", "Volume"):
            name = name.removesuffix(kind)
        return name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeDaemon(Operation):
    """A change of dockerd that the daemon stage makes before containers are handled. Plans show it; it is never among
    their works."""

    step: str  # start, reload or restart

    @property
    def verb(self) -> str:
        return self.step


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateNetwork(Operation):
    network: Network


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceNetwork(Operation):
    """Disconnects our containers, removes the network, creates it again and reconnects them: Docker cannot change a
    network in place."""

    network: Network
    members: tuple[Container, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptNetwork(Operation):
    """Takes over a foreign network unchanged; if it differs from its section, a replacement follows as for any change."""

    network: Network
    foreign: ObservedNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveNetwork(Operation):
    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateVolume(Operation):
    volume: Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptVolume(Operation):
    """Takes over a foreign volume and leaves its data as it is."""

    volume: Volume
    foreign: ObservedVolume


@dataclass(frozen=True, slots=True, kw_only=True)
class AcknowledgeLoss(Operation):
    """Clears the note that the volume's data was lost: the user has changed the section since, so the loss was noticed."""

    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveVolume(Operation):
    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateContainer(Operation):
    """Pulls the image if the policy says so, creates the container and connects its other networks. `keep` and `fresh`:
    see `ReplaceContainer`."""

    container: Container
    keep: str = ""
    fresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StartContainer(Operation):
    container: Container


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareContainer(Operation):
    """Runs `post_start` again after it failed or was interrupted."""

    container: Container


@dataclass(frozen=True, slots=True, kw_only=True)
class StopContainer(Operation):
    record: Record
    stop_timeout_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpauseContainer(Operation):
    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartContainer(Operation):
    """Stops and starts a container: the container whose namespace it shares was replaced, or its health check fails
    (`unhealthy`)."""

    container: Container
    record: Record
    unhealthy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAsideContainer(Operation):
    """Frees a Docker name: renames another container of ours, whose section has a new name for it or was removed."""

    record: Record  # of the container that is renamed

    @property
    def verb(self) -> str:
        return "rename"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateContainer(Operation):
    """POST /containers/{id}/update; `fields` are ContainerSpec field names. `again`: restores the last applied values,
    although the section now says something else."""

    container: Container
    record: Record
    fields: tuple[str, ...]
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameContainer(Operation):
    container: Container
    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconnectContainer(Operation):
    """Makes the endpoints match the spec: disconnects endpoints that differ and connects them again."""

    container: Container
    record: Record
    again: bool = False  # see `UpdateContainer`


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceContainer(Operation):
    """A swap with rollback. `record` is the old container's; `runs`: the old container is running and serves until the
    swap.

    `keep`: id of the image to use, if it is available locally or, by `digest`, from a registry; "" means the image
    that the reference names, and with `fresh` the registry is asked first. `pin`: the container stays on that image.
    `only_image`: nothing is done if the running container already uses that image. `restores`: the key of the data to
    restore into its volumes. `frees`: the old container and its image are removed before the pull (`strategy
    free-first`).
    """

    container: Container
    record: Record
    runs: bool = True
    keep: str = ""
    digest: str = ""
    fresh: bool = False
    pin: bool = False
    only_image: bool = False
    restores: str = ""
    frees: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptContainer(Operation):
    """Takes over a foreign container: records it; a swap then gives it our labels."""

    container: Container
    foreign: ObservedContainer


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteContainer(Operation):
    """Records what must be known after the section is removed: the grace period, and whether the volumes are deleted
    too.

    `volumes`: its anonymous volumes as the engine reports them, None to keep the recorded ones. `waits`: also record
    its `wait_for` and `depends_on`. `again`: forget that its job is completed, so that it runs again.
    """

    container: Container
    record: Record
    volumes: tuple[str, ...] | None = None
    waits: bool = False
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RetireContainer(Operation):
    """The section was removed: disables the restart policy, stops the container and keeps it for the grace period."""

    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreContainer(Operation):
    """The section came back within the grace period: restores the restart policy."""

    container: Container
    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveContainer(Operation):
    record: Record
    volumes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget(Operation):
    """Drops a record: its object and its section no longer exist, or the section says that others manage the object."""

    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A condition that planning found; written to the status board unchanged."""

    key: str
    type: str  # a ConditionType value
    status: bool
    reason: Reason
    message: str = ""
    since: float | None = None  # wall clock, seconds; set if the engine reports when the state began
    output: str = ""  # with Running: the last output before the container ended
    # with Waiting: the condition as a phrase if it depends on our resources, such as "db is healthy"
    once: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The operations on one resource, in order. They begin once all works of `needs` have succeeded and all works of
    `after` have ended, successfully or not."""

    key: str
    operations: tuple[Operation, ...]
    needs: frozenset[str] = frozenset()
    after: frozenset[str] = frozenset()
    partial: bool = False  # the section asks for more changes, which cannot be made now


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Works in an order that respects `needs`, and the findings of planning."""

    works: tuple[Work, ...] = ()
    findings: tuple[Finding, ...] = ()
    # keys of containers that were compared in full and may be changed
    looked: frozenset[str] = frozenset()
    defects: tuple[tuple[str, Exception], ...] = ()  # (key, exception raised while planning it), to be logged

    @property
    def operations(self) -> tuple[Operation, ...]:
        return tuple(operation for work in self.works for operation in work.operations)

    def __str__(self) -> str:
        lines = [f"{op.verb:<14} {op.key:<24} {op.cause}" for op in self.operations]
        return "\n".join(lines) if lines else "nothing to do"
