# SPDX-License-Identifier: GPL-2.0-or-later
"""Operations and the plan made of them.

`reconcile` makes them, `agent.apply.executor` carries them out without deciding anything. Every operation says
why (`cause`). `Replace` is the one operation of several engine calls: its steps are in `agent.apply.swap`.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.errors import Reason
from agent.model.observed import ObservedContainer, ObservedNetwork, ObservedVolume, Record
from agent.model.resources import Container, Network, Volume
from agent.plan.container.changes import OptionChange


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Common to all: what it acts on and why. `changes`: the options that it is about, as far as it is about options;
    then `besides` is the rest of the cause."""

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
    """What dockerd's own stage does before the containers' turn: shown in a plan, never part of its works."""

    step: str  # start, reload or restart

    @property
    def verb(self) -> str:
        return self.step


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateNetwork(Operation):
    network: Network


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceNetwork(Operation):
    """Disconnect what is ours, remove, create, connect again: a network cannot change in place."""

    network: Network
    members: tuple[Container, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptNetwork(Operation):
    """Takes a foreign network over as it is; what differs is then replaced as any change is."""

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
    """Takes a foreign volume over; its data stays as it is."""

    volume: Volume
    foreign: ObservedVolume


@dataclass(frozen=True, slots=True, kw_only=True)
class AcknowledgeLoss(Operation):
    """The section changed since the volume's data was lost: so the loss was noticed."""

    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveVolume(Operation):
    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateContainer(Operation):
    """Pulls where the policy says so, creates, connects the further networks. `keep`, `fresh`: as with a replacement."""

    container: Container
    keep: str = ""
    fresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StartContainer(Operation):
    container: Container


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareContainer(Operation):
    """Runs its `post_start` again, which failed or was cut short."""

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
    """Stop and start: the namespace that it shares is another's by now, or its health check fails (`unhealthy`)."""

    container: Container
    record: Record
    unhealthy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAsideContainer(Operation):
    """Takes a Docker name from another container of ours, which is to have another one or is gone from UCI."""

    record: Record  # the other one's

    @property
    def verb(self) -> str:
        return "rename"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateContainer(Operation):
    """POST /containers/{id}/update; `fields` are ContainerSpec field names. `again`: it is set to what was applied
    last, and the section says something else."""

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
    """Make the endpoints what the spec says: disconnect what differs, connect it again."""

    container: Container
    record: Record
    again: bool = False  # as with an update


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceContainer(Operation):
    """A swap with rollback; `record` is the old one's. `runs`: whether that one serves until then.

    `keep`: the id of the image to use while it is available, locally or by `digest` from a registry; "" for what the
    reference names, asked of the registry first where it has to be `fresh`. `pin`: it stays on that image. `only_image`:
    there is nothing to do where that is the image that runs. `restores`: the key of the data that its volumes get.
    `frees`: the old container and its image go before the pull (`strategy free-first`).
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
    """Takes a foreign container over: records it, then a swap gives it our labels."""

    container: Container
    foreign: ObservedContainer


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteContainer(Operation):
    """Writes down what has to be known once the section is gone: its grace period and whether volumes go too.

    `volumes`: its anonymous volumes as the engine shows them, None where the record names them. `waits`: also what it
    waited for. `again`: the job that it did is to be done again.
    """

    container: Container
    record: Record
    volumes: tuple[str, ...] | None = None
    waits: bool = False
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RetireContainer(Operation):
    """The section is gone: switch the restart policy off, stop, and keep for the grace period."""

    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreContainer(Operation):
    """The section came back within the grace period: give the restart policy back."""

    container: Container
    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveContainer(Operation):
    record: Record
    volumes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget(Operation):
    """Drops a record: its object and its section are gone, or the section says that the object is not ours."""

    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A condition that planning found out; written to the status board as it is."""

    key: str
    type: str  # a ConditionType value
    status: bool
    reason: Reason
    message: str = ""
    since: float | None = None  # wall clock, seconds: where the engine tells when it began
    output: str = ""  # with Running: what it printed last before it ended
    once: str = ""  # with Waiting: what of ours it waits for, as "db is healthy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The operations on one resource, in order; begun once every work of `needs` has succeeded, and every one of
    `after` has ended in whatever way."""

    key: str
    operations: tuple[Operation, ...]
    needs: frozenset[str] = frozenset()
    after: frozenset[str] = frozenset()
    partial: bool = False  # the section asks for more, which cannot be done now


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Works in an order that respects `needs`, and what planning found out on the way."""

    works: tuple[Work, ...] = ()
    findings: tuple[Finding, ...] = ()
    # keys of containers that were compared in full, and may be worked on
    looked: frozenset[str] = frozenset()
    defects: tuple[tuple[str, Exception], ...] = ()  # key -> what planning it raised, which is to be logged

    @property
    def operations(self) -> tuple[Operation, ...]:
        return tuple(operation for work in self.works for operation in work.operations)

    def __str__(self) -> str:
        lines = [f"{op.verb:<14} {op.key:<24} {op.cause}" for op in self.operations]
        return "\n".join(lines) if lines else "nothing to do"
