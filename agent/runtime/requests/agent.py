# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests of clients to the running agent, by HTTP and by ubus: `agent.api.port` on top of the loop and the reconciler.

Nothing is decided here. Blocking calls run in a thread, and between two passes if passes must not run meanwhile.
Modules that few requests need are imported on use.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from agent.apply.worker_pool import Outcome
from agent.errors import ConfigError, ConflictError, EngineUnreachableError
from agent.model.dockerd.settings import DaemonAction
from agent.model.identity import Key
from agent.model.issues import GivenConfig, issue_as_json
from agent.model.resources import RegistryAuth
from agent.runtime.loop import Loop
from agent.status.board import StatusBoard
from agent.status.metrics import Metric, PassCounters

if TYPE_CHECKING:
    from agent.api.port import ProgressSink
    from agent.convert.requests import ImportRequest
    from agent.notices import Notices
    from agent.observe.load import Loads
    from agent.plan.description import PlanDescription
    from agent.runtime.requests.moving import Mover
    from agent.runtime.requests.versions import VersionRequest
    from agent.storage import PruneScheduler

_WAVES = 20  # passes of one `reconcile`: a container that keeps failing must not prolong it for ever
_COPY_WAITS_S = 60.0  # time to wait for works on a container before its volume is copied
_LOOK_AGAIN_S = 0.05


class RunningAgent:
    """Implements `agent.api.port.AgentPort`."""

    def __init__(
        self,
        loop: Loop,
        *,
        pruning: PruneScheduler | None = None,
        loads: Loads | None = None,
        notices: Notices | None = None,
        make_mover: Callable[[], Mover] | None = None,
    ) -> None:
        self._loop, self._reconciler = loop, loop.reconciler
        self.board: StatusBoard = loop.board
        self.passes: PassCounters = loop.passes
        self._pruning, self._loads, self._notices = pruning, loads, notices
        self._make_mover = functools.cache(make_mover) if make_mover is not None else None
        self._one_client = asyncio.Lock()

    async def plan(self, given: GivenConfig | None = None) -> dict[str, Any]:
        """What a pass would do now, or would do if `given` were committed."""
        # imported here: an agent without clients does not need them
        from agent.runtime.requests.foresight import foresee
        from agent.runtime.requests.planning import plan_answer

        if given is not None:
            from agent.runtime.requests.foresight import foresee_change, load_change

            change = await asyncio.to_thread(load_change, self._reconciler, given)
            found = await self._loop.in_pass(lambda: foresee_change(self._reconciler, change))
            return plan_answer(found, [issue_as_json(issue) for issue in change.loaded.issues])
        # a client that has just committed expects an answer about what it wrote
        await self._loop.settled_files()

        def plan_now() -> PlanDescription:
            self._loop.read_config()
            return foresee(self._reconciler)

        found = await self._loop.in_pass(plan_now)
        return plan_answer(found, self.config_issues())

    async def reconcile(self, *, settle_s: float = 0.0) -> dict[str, Any]:
        """Runs a full pass now, including everything that failed before.

        Waits for the pass and for works in progress, and continues as long as more can be done at once, because
        follow-up work belongs to this request. Resources that wait for something else are reported. `settle_s`:
        seconds that a started container has to run before it counts as done.
        """
        from agent.runtime.requests.planning import reconcile_answer

        def reconcile_now() -> None:
            with self._loop.counted():
                self._reconciler.forget_failures()
                self._loop.read_config()
                # a request by a person is meant for the engine that is running
                if self._reconciler.daemon is not None:
                    self._reconciler.daemon.accept_engine()
                self._reconciler.begin_pass(deep=None)

        # before the pass and outside of it: containers that a person stopped manually shall follow their sections
        # again
        self._reconciler.holds.clear()
        await self._loop.settled_files()
        with self._reconciler.under_way.collecting() as outcomes:
            await self._loop.in_pass(reconcile_now)
            found = await self._until_idle(outcomes, settle_s)
            return reconcile_answer(found, outcomes, self.config_issues())

    async def _until_idle(self, outcomes: Sequence[Outcome], settle_s: float = 0.0) -> PlanDescription:
        """Continues while something can be done at once; returns what is left then."""
        from agent.runtime.requests.planning import SettleWatch

        settling, waves = SettleWatch(settle_s, self._reconciler.monotonic), 0
        while True:
            await self._loop.ended()
            found = await self._loop.in_pass(self._go_on)
            # a started container may end a second later (a service that exits): `settle_s` covers that time
            waves += self._reconciler.under_way.is_busy()
            if waves >= _WAVES or not (self._reconciler.under_way.is_busy() or settling.lasts(outcomes)):
                return found
            if not self._reconciler.under_way.is_busy():
                await asyncio.sleep(SettleWatch.LOOK_S)

    async def update(self, names: Sequence[str]) -> dict[str, object]:
        """Updates containers to the newest images; returns when that is done or has to wait."""
        return await self._renew(names, back=False)

    async def rollback(self, name: str, *, with_data: bool = False) -> dict[str, object]:
        """Takes a container back to its previous image."""
        return await self._renew([name], back=True, with_data=with_data)

    async def _renew(self, names: Sequence[str], *, back: bool, with_data: bool = False) -> dict[str, object]:
        # imported here because few requests need it
        from agent.runtime.requests.versions import answer, ask, without_engine

        def begin() -> tuple[VersionRequest, ...]:
            self._loop.read_config()
            asked = ask(self._reconciler, names, back=back, with_data=with_data)
            with self._loop.counted():
                self._reconciler.begin_pass(deep=None)
            return asked

        await self._loop.settled_files()
        with self._reconciler.under_way.collecting() as outcomes:
            asked = await self._loop.in_pass(begin)
            try:
                found = await self._until_idle(outcomes)
            # a dockerd that goes away meanwhile takes no request with it
            except EngineUnreachableError as exc:
                found = without_engine(asked, exc)
            return answer(self._reconciler, asked, found, outcomes)

    def _go_on(self) -> PlanDescription:
        """Begins what can be done now. The returned description is final if nothing was begun."""
        from agent.runtime.requests.foresight import foresee  # see above

        found = foresee(self._reconciler)
        if found.plan.works and not self._reconciler.stopping.is_set():
            with self._loop.counted():
                self._reconciler.begin_pass(deep=None)
        return found

    async def validate(self, texts: Mapping[str, str]) -> list[dict[str, object]]:
        """The mistakes in the configuration if these `texts` were the files of their packages."""
        from agent.runtime.requests.foresight import mistakes  # see above

        issues = await asyncio.to_thread(mistakes, self._reconciler, GivenConfig(texts=texts))
        return [issue_as_json(issue) for issue in issues]

    async def load(self, name: str = "", *, hours: float = 24.0) -> dict[str, Any]:
        """The present load of all containers, or of one of them over the last hours."""
        if self._loads is None:
            raise ConflictError("this agent measures no load")
        return self._loads.of(name, hours=hours) if name else await self._loads.now()

    async def reach(self) -> dict[str, Any]:
        """Which firewall zones reach the published ports of each container that runs, managed or not."""
        router = self._reconciler.router
        if router is None:
            return {"containers": {}}

        def look() -> dict[str, Any]:
            engine = self._reconciler.engine
            return {"containers": router.reach_of(engine.list_published(), engine.list_networks())}

        return await asyncio.to_thread(look)

    def load_metrics(self) -> list[Metric]:
        """The load of containers at the last sample."""
        return self._loads.metrics() if self._loads is not None else []

    def api_version(self) -> str:
        """`dockerd.globals.api_version`."""
        desired = self._reconciler.desired
        return desired.daemon.api_version if desired is not None and desired.daemon is not None else ""

    def images(self) -> frozenset[str]:
        """The images (references and ids) that no clean-up may remove. Raises ConfigError, ConflictError."""
        from agent.plan.prune import needed_images

        return frozenset(needed_images(self._reconciler.declared(), self._reconciler.records.records()))

    def auths(self) -> Sequence[RegistryAuth]:
        """The registry logins in UCI."""
        desired = self._reconciler.desired
        return desired.auths if desired is not None else ()

    async def adopt(
        self, container: str, *, section: str, commit: bool, show_secrets: bool
    ) -> dict[str, object]:
        """A foreign container as UCI sections; a commit triggers a pass like any other edit."""
        # takes a megabyte that few requests need
        from agent.runtime.requests.adopt import AdoptRequest, adopt_container

        request = AdoptRequest(container=container, section=section, commit=commit, show_secrets=show_secrets)
        return await asyncio.to_thread(adopt_container, self._reconciler, request)

    async def import_text(self, request: ImportRequest) -> dict[str, object]:
        """A docker run line or compose file as UCI sections; a commit triggers a pass like any other edit."""
        from agent.runtime.requests.adopt import Importer  # takes a megabyte that few requests need

        return await asyncio.to_thread(Importer(store=self._reconciler.store).run, request)

    def export_text(self, form: str, names: Sequence[str]) -> str:
        """Container sections as docker run lines or a compose file."""
        from agent.convert.requests import export  # see above

        return export(form, names, self._reconciler.declared())

    async def prune(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """See `agent.storage.space`."""
        from agent.storage.space import PruneRequest  # imported here because few requests need it

        if self._pruning is None:
            raise ConflictError("this agent does not clean up")
        # without a configuration every image would look unneeded
        self._reconciler.declared()
        request = PruneRequest(**{"images": self._pruning.images(), **asked})
        return await asyncio.to_thread(self._pruning.prune, request)

    async def notify_test(self, name: str) -> dict[str, Any]:
        """Sends a test notice through one section."""
        if self._notices is None:
            raise ConflictError("this agent sends no notices")
        return await asyncio.to_thread(self._notices.test, name)

    async def diff(self, name: str) -> dict[str, object]:
        """The differences between one container section and its container on the engine."""

        def diff_now() -> dict[str, object]:
            from agent.runtime.requests.planning import diff

            self._reconciler.read_config()
            return diff(self._reconciler, name)

        # between two passes: a half-done swap would show differences that no user made
        return await self._loop.in_pass(diff_now)

    async def describe(self, name: str) -> dict[str, object]:
        """Everything about one container section."""

        def describe_now() -> dict[str, object]:
            from agent.runtime.requests.planning import describe

            # read the file first: the section may have been committed a moment ago
            self._reconciler.read_config()
            return describe(self._reconciler, name)

        return await self._loop.in_pass(describe_now)

    async def history(self, name: str) -> dict[str, object]:
        """The earlier settings of a container section."""
        from agent.runtime.requests.versions import (
            earlier_versions,  # imported here because few requests need it
        )

        return await asyncio.to_thread(earlier_versions(self._reconciler).show, name)

    async def revert(self, name: str, number: int, *, commit: bool) -> dict[str, object]:
        """Restores earlier settings to the section; a commit triggers a pass like any other edit."""
        from agent.runtime.requests.versions import earlier_versions  # see above

        return await asyncio.to_thread(
            earlier_versions(self._reconciler).go_back, name, number, commit=commit
        )

    async def manual(self, container: str, action: str) -> None:
        """Holds a managed container as a manual action leaves it; other containers are ignored. Call it before the
        action."""
        if await asyncio.to_thread(self._reconciler.manual.hold, container, action):
            self._loop.trigger()

    async def manual_failed(self, container: str) -> None:
        """The engine refused the action: removes its hold."""
        await asyncio.to_thread(self._reconciler.manual.release, container)
        self._loop.trigger()

    async def begin_copy(self, volumes: Iterable[str]) -> frozenset[str]:
        """See `agent.data.volumes.Manual`. Containers of invalid sections are left alone anyway."""
        keys = self._reconciler.manual.mounting(frozenset(volumes))
        # passes leave the containers alone from here on; works that an earlier pass began are awaited below
        self._reconciler.holds.begin_copy(keys)
        for _ in range(round(_COPY_WAITS_S / _LOOK_AGAIN_S)):
            # between two passes, because a pass that began earlier may still plan for them
            at_work = await self._loop.in_pass(
                lambda: sorted(key for key in keys if self._reconciler.under_way.doing(key))
            )
            if not at_work:
                return keys
            await asyncio.sleep(_LOOK_AGAIN_S)
        await self.end_copy(keys)
        # give up instead of waiting for ever: a pull may take an hour, and the client would be gone
        raise ConflictError(f"{at_work[0]} is being changed; try again when that is done")

    async def end_copy(self, keys: frozenset[str]) -> None:
        """See `agent.data.volumes.Manual`."""
        self._reconciler.holds.end_copy(keys)
        self._loop.trigger(deep=True)

    def managed(self, containers: Iterable[str]) -> frozenset[str]:
        """See `agent.data.volumes.Manual`."""
        ours = {r.object_id for r in self._reconciler.records.records() if r.kind == "container"}
        return frozenset(containers) & ours

    async def updates(self) -> dict[str, object]:
        """The results of the last update checks."""
        desired, checks = self._reconciler.desired, self._reconciler.updates
        if desired is None or checks is None:
            return {"checked_at": None, "checking": False, "containers": [], "registries": []}
        # in a thread, because it may ask the engine about images
        return await asyncio.to_thread(checks.answer, desired)

    async def check_updates(self, names: Sequence[str] = ()) -> dict[str, object]:
        """Asks the registries now; returns when they have answered."""
        desired = self._reconciler.declared()
        # a section's name takes precedence over another section's Docker name
        by_name = {c.name: c.section for c in desired.containers}
        by_name |= {c.section: c.section for c in desired.containers}
        keys = [Key("container", by_name.get(name, name)) for name in names]
        # joins a check in progress: two clients at the same time cause only one check
        under_way = await asyncio.to_thread(lambda: self._reconciler.update_checks().check(desired, keys))
        await asyncio.wrap_future(under_way)
        return await self.updates()

    async def tls_client(self, name: str, *, days: int) -> dict[str, object]:
        """A client's certificate bundle, one request at a time because each starts a child process. Nothing is stored."""
        maker = self._reconciler.certificates
        if maker is None:
            raise ConfigError("this agent makes no certificates")
        async with self._one_client:
            made = await asyncio.to_thread(maker.sign_client, name, days=days, now=self._reconciler.wall())
        return asdict(made)

    async def dockerd(self, wish: DaemonAction) -> None:
        """Makes the next pass start, stop or restart dockerd."""
        stage = self._reconciler.daemon
        if stage is None:
            raise ConflictError("this agent does not run dockerd")
        await asyncio.to_thread(stage.ask, wish, self._reconciler.desired)
        self._loop.trigger()

    async def look_at_move(self, target: str) -> dict[str, Any]:
        """What moving dockerd's data to `target` would do."""
        return await self.mover().preview(target)

    async def move_data(self, target: str, progress: ProgressSink) -> None:
        """Moves dockerd's data to `target`."""
        await self.mover().move(target, progress)

    def mover(self) -> Mover:
        """The mover of dockerd's data. Raises ConflictError if this agent does not run dockerd."""
        if self._make_mover is None:
            raise ConflictError("this agent does not run dockerd")
        return self._make_mover()

    def config_issues(self) -> list[dict[str, object]]:
        """The mistakes of the last read, and why containers wait for dockerd."""
        # shown with the mistakes, because users look there for the cause
        holding = self._reconciler.daemon.holding if self._reconciler.daemon is not None else ""
        found: list[dict[str, object]] = [
            {"severity": i.severity, "text": i.text()} for i in self._reconciler.last.issues
        ]
        return [*found, {"severity": "warning", "text": f"containers wait: {holding}"}] if holding else found
