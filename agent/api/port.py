# SPDX-License-Identifier: GPL-2.0-or-later
"""What the API asks of the running agent and of who knows the sessions, and requests that HTTP and ubus take alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from agent.api.jobs.job_specs import JobKind, JobSpec
from agent.api.problems import RequestError, checked_id, number, text
from agent.data.volumes import Manual
from agent.model.dockerd.settings import CERTIFICATE_DAYS_MAX, CLIENT_DAYS, DaemonAction
from agent.model.issues import Given, GivenSection
from agent.model.quantities import QuantityError, parse_age
from agent.model.resources import PruneImages, RegistryAuth
from agent.status.board import StatusBoard
from agent.status.metrics import Metric, PassCounters

if TYPE_CHECKING:
    from agent.api.jobs.jobs import Jobs
    from agent.convert.requests import ImportRequest


class Told(Protocol):
    """Who hears of the progress of work: a job. `take`: a line with a `status`; `expect` and `sent`: bytes."""

    result: dict[str, Any]

    def take(self, line: Mapping[str, Any]) -> None: ...
    def expect(self, total: int) -> None: ...
    def sent(self, count: int) -> None: ...


class AgentPort(Manual, Protocol):
    """`plan` and `reconcile` raise EngineError when the engine is away."""

    board: StatusBoard
    passes: PassCounters

    async def plan(self, given: Given | None = None) -> dict[str, Any]:
        """What a pass would do now (`operations`), and all else that is not as declared (`pending`).

        `given`: were that committed; raises ConfigError for a package that is not ours.
        """
        ...

    async def reconcile(self, *, settle_s: float = 0.0) -> dict[str, Any]:
        """A full pass; returns when it and what was under way are ended, and what it started has run `settle_s` seconds."""
        ...

    async def validate(self, texts: Mapping[str, str]) -> list[dict[str, Any]]:
        """The mistakes of the configuration, were these the files of the packages named. Writes nothing."""

    async def load(self, name: str = "", *, hours: float = 24.0) -> dict[str, Any]:
        """What all containers take now, or a section's container in the last hours. Raises ConfigError, ConflictError."""
        ...

    def load_metrics(self) -> list[Metric]:
        """What containers took at the last sample."""

    def api_version(self) -> str:
        """The API version that UCI wants LuCI to speak with the engine (`v1.47`), "" for the newest."""

    def auths(self) -> Sequence[RegistryAuth]:
        """The registry logins that UCI has now."""

    async def manual(self, container: str, action: str) -> None:
        """A manual action (stop, remove, rename ...) on a container, name or id: call it before the action.

        A managed container is held as the action leaves it until its section changes or a reconcile is asked for.
        """

    async def manual_failed(self, container: str) -> None:
        """The engine refused the action that `manual` announced."""

    async def adopt(
        self, container: str, *, section: str, commit: bool, show_secrets: bool
    ) -> dict[str, Any]:
        """A container that is not ours as UCI sections: text, notes, whether they were committed.

        Raises ConfigError, ConflictError, EngineError (404 for no such container).
        """
        ...

    async def import_text(self, request: ImportRequest) -> dict[str, Any]:
        """A docker run line or a compose file as UCI sections with a report. Raises ConfigError, ConflictError."""
        ...

    def export_text(self, form: str, names: Sequence[str]) -> str:
        """Container sections as docker run lines or a compose file. Raises ConfigError for an unknown name."""

    async def prune(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Removes images that nothing needs, or shows them; `asked`: of `prune_request_of`. Returns what goes, what
        stays and why. Raises EngineError, ConfigError, ConflictError.
        """
        ...

    async def notify_test(self, name: str) -> dict[str, Any]:
        """Sends a test notice through a notify section: `sent`, `error`, `took_s`. Raises ConfigError for no such one."""
        ...

    async def update(self, names: Sequence[str]) -> dict[str, Any]:
        """Replaces containers by ones of the newest images, by the swap that can be undone: `containers`, with the
        outcome of each. Raises ConfigError, ConflictError, EngineError.
        """
        ...

    async def rollback(self, name: str, *, with_data: bool = False) -> dict[str, Any]:
        """Takes a container back to the image before, and its data to what was saved then; answer and errors as of
        `update`.
        """
        ...

    async def diff(self, name: str) -> dict[str, Any]:
        """One container section against what the engine shows. Raises ConfigError for no such section."""
        ...

    async def describe(self, name: str) -> dict[str, Any]:
        """Everything about one container section. Raises ConfigError for no such section."""
        ...

    async def updates(self) -> dict[str, Any]:
        """What the last checks of images found: `containers`, `registries`, `checked_at`, `checking`."""
        ...

    async def check_updates(self, names: Sequence[str] = ()) -> dict[str, Any]:
        """Asks the registries of these containers, of all without names; the same, when they have been asked.

        Raises ConfigError for an unknown name, ClockNotSetError, ConflictError, EngineError.
        """
        ...

    async def history(self, name: str) -> dict[str, Any]:
        """The settings that a container section had, newest first; secrets are in it. Raises ConfigError."""
        ...

    async def revert(self, name: str, number: int, *, commit: bool) -> dict[str, Any]:
        """One of these settings as the section: a preview, or committed. Raises ConfigError, ConflictError, OSError."""
        ...

    async def tls_client(self, name: str, *, days: int) -> dict[str, Any]:
        """A new client's bundle for dockerd's TLS: `name`, `files` (PEM, a private key among it), `expires` (unix
        seconds), `server_names`. Raises ConfigError, ClockNotSetError, CertificateError.
        """
        ...

    async def look_at_move(self, target: str) -> dict[str, Any]:
        """What a move of dockerd's data to that folder would do: sizes, what stops and for how long. Nothing is copied.

        Raises ConflictError, ConfigError, DataError, EngineError where it cannot be made.
        """
        ...

    async def move_data(self, target: str, told: Told) -> None:
        """Moves it; errors as of `look_at_move`. Then the old data is in use as before."""

    async def dockerd(self, wish: DaemonAction) -> None:
        """Has dockerd started, stopped or restarted soon. Raises ConflictError, which says why not."""


class Sessions(Protocol):
    """Checks sessions: rpcd on OpenWrt, a token file elsewhere."""

    async def allowed(self, session: str, object: str, method: str) -> bool:  # noqa: A002 - ubus's word
        """Whether that session may call that method of that ubus object; False for a session that is not known.

        May be true for 5 s after the right has ended. Raises BusError without an answer.
        """


# What HTTP and ubus ask of the agent alike: UCI text checked or planned, and certificates for dockerd's clients.


def given_of(body: Mapping[str, Any]) -> Given:
    """What is to be planned: `packages` (package -> UCI text), `paths` (package -> where that is from), `sections`
    (package -> section -> option -> value or list, null deletes the section), `staged`. Raises RequestError.
    """
    # A misspelt key is refused: it would otherwise plan something else than was asked, and look right.
    if unknown := sorted(body.keys() - {"packages", "paths", "sections", "staged"}):
        raise RequestError(
            f"{unknown[0][:64]!r} is not known; use `packages`, `paths`, `sections` and `staged`"
        )
    staged = body.get("staged", False)
    if not isinstance(staged, bool):
        raise RequestError("`staged`: expected true or false")
    return Given(
        texts=_texts(body, "packages"), paths=_texts(body, "paths"), sections=_sections(body), staged=staged
    )


def revert_of(body: Mapping[str, Any]) -> tuple[int, bool]:
    """Which version is asked for, and whether it is committed. Raises RequestError."""
    if unknown := sorted(body.keys() - {"version", "commit"}):
        raise RequestError(f"{unknown[0][:64]!r} is not known; known: version, commit")
    number, commit = body.get("version"), body.get("commit", False)
    if not isinstance(number, int) or isinstance(number, bool):
        raise RequestError("version: expected the number of a version, as `history` shows it")
    if not isinstance(commit, bool):
        raise RequestError("commit: expected true or false")
    return number, commit


def _sections(body: Mapping[str, Any]) -> dict[str, dict[str, GivenSection | None]]:
    found = body.get("sections", {})
    packages = found.values() if isinstance(found, dict) else [None]
    if not all(isinstance(package, dict) and all(map(_is_section, package.values())) for package in packages):
        raise RequestError(
            "`sections`: expected an object of sections by package, each an object of texts and lists of texts, or null"
        )
    return dict(found)


def _is_section(said: object) -> bool:
    if not isinstance(said, dict):
        return said is None
    # rpcd's `.anonymous` and `.index` are not texts
    values = (value for name, value in said.items() if not name.startswith(".") or name == ".type")
    return all(
        isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str) for v in value))
        for value in values
    )


def _texts(body: Mapping[str, Any], name: str) -> dict[str, str]:
    found = body.get(name, {})
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise RequestError(f"`{name}`: expected an object of texts by package")
    return found


def import_request_of(body: Mapping[str, Any]) -> ImportRequest:
    """The body of `POST /v1/import`. Raises RequestError."""
    from agent.convert.requests import TEXT_MAX, ImportRequest  # few need it

    texts = ("run", "compose", "project", "folder", "env")
    if unknown := sorted(body.keys() - {*texts, "profiles", "commit"}):
        raise RequestError(
            f"{unknown[0][:64]!r} is not known; use {', '.join(f'`{name}`' for name in texts)}, `profiles` and `commit`"
        )
    profiles, commit = body.get("profiles", []), body.get("commit", False)
    if not isinstance(commit, bool):
        raise RequestError("`commit`: expected true or false")
    if not isinstance(profiles, list) or not all(isinstance(profile, str) for profile in profiles):
        raise RequestError("`profiles`: expected a list of names")
    for name in texts:
        if not isinstance(body.get(name, ""), str) or len(body.get(name, "")) > TEXT_MAX:
            raise RequestError(f"`{name}`: expected a text of at most {TEXT_MAX} characters")
    given = {name: body[name] for name in texts if name in body}
    return ImportRequest(**given, profiles=tuple(profiles), commit=commit)


def update_names_of(body: Mapping[str, Any]) -> tuple[str, ...]:
    """The body of `POST /v1/updates/check` and `POST /v1/update`. Raises RequestError."""
    if unknown := sorted(body.keys() - {"names"}):
        raise RequestError(f"{unknown[0][:64]!r} is not known; use `names`")
    names = body.get("names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RequestError("`names`: expected a list of names")
    return tuple(names)


def prune_request_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """`images` (dangling, unused), `older` (7d), `build_cache`, `dry_run`. What is missing is as the configuration says,
    or not wished for. Raises RequestError."""
    if unknown := sorted(body.keys() - {"images", "older", "build_cache", "dry_run"}):
        raise RequestError(
            f"{unknown[0][:64]!r} is not known; use `images`, `older`, `build_cache` and `dry_run`"
        )
    # Only what was asked for is in it: everything else is filled in from the configuration when it is carried out.
    found: dict[str, Any] = {}
    for name in ("build_cache", "dry_run"):
        if not isinstance(body.get(name, False), bool):
            raise RequestError(f"`{name}`: expected true or false")
        found[name] = body.get(name, False)
    if images := text(body, "images"):
        if images not in (PruneImages.DANGLING, PruneImages.UNUSED):
            raise RequestError("`images`: expected dangling or unused")
        found["images"] = PruneImages(images)
    if older := text(body, "older"):
        try:
            found["older_s"] = parse_age(older)
        except QuantityError as exc:
            raise RequestError(f"`older`: {exc}") from exc
    return found


def rollback_of(body: Mapping[str, Any]) -> tuple[str, bool]:
    """The body of `POST /v1/rollback`: name, and whether with its data. Raises RequestError."""
    if unknown := sorted(body.keys() - {"name", "with_data"}):
        raise RequestError(f"{unknown[0][:64]!r} is not known; use `name` and `with_data`")
    with_data = body.get("with_data", False)
    if not isinstance(with_data, bool):
        raise RequestError("`with_data`: expected true or false")
    return checked_id(text(body, "name")), with_data


async def validated(agent: AgentPort, texts: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to UCI text by package. Raises RequestError, ConfigError for a package that is not ours."""
    for name, uci in texts.items():
        if not isinstance(uci, str):
            raise RequestError(f"{name[:64]!r}: expected the text of a UCI file")
    issues = await agent.validate(texts)
    return {"valid": not any(issue["severity"] == "error" for issue in issues), "issues": issues}


def backup_names(body: Mapping[str, Any]) -> tuple[str, ...]:
    """The body of `POST /v1/backups`: `names`, all sections where it is missing. Raises RequestError."""
    if unknown := sorted(body.keys() - {"names"}):  # a wrong word must not make all of them
        raise RequestError(f"{unknown[0][:64]!r} is not known; use `names`")
    names = body.get("names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RequestError("`names`: expected a list of backup sections")
    return tuple(names)


def restore_of(body: Mapping[str, Any]) -> dict[str, str]:
    """The body of a restore: `volume`, `file` and `into`, each of which may be missing. Raises RequestError."""
    if unknown := sorted(body.keys() - {"volume", "file", "into"}):
        raise RequestError(f"{unknown[0][:64]!r} is not known; known: volume, file, into")
    found = {name: text(body, name) for name in ("volume", "file", "into") if name in body}
    for name in ("volume", "into"):
        if found.get(name):
            checked_id(found[name])
    if found.get("file") and not found["file"].startswith("/"):
        raise RequestError("`file`: expected an absolute path")
    return found


def move_target_of(body: Mapping[str, Any]) -> str:
    """The body of a move of dockerd's data: `target`. Raises RequestError."""
    if unknown := sorted(body.keys() - {"target"}):
        raise RequestError(f"{unknown[0][:64]!r} is not known; use `target`")
    target = text(body, "target")
    if not target.startswith("/"):
        raise RequestError("`target`: expected an absolute path, such as /mnt/sda1/docker")
    return target


def start_move(agent: AgentPort, jobs: Jobs, body: Mapping[str, Any]) -> dict[str, Any]:
    """The job that moves dockerd's data. Raises RequestError, ConflictError when too many jobs are running."""
    target = move_target_of(body)
    spec = JobSpec(kind=JobKind.MOVE, title=target, path="", uploads=True)
    return {"job": jobs.start(spec, work=lambda job: agent.move_data(target, job)).as_json()}


# Manual control of dockerd, for every door: the answer to start, stop and restart, and a client's bundle.


STARTED = {"started": True}


async def client_bundle(agent: AgentPort, body: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to `{name, days}`. Raises RequestError, and what `AgentPort.tls_client` raises."""
    days = number(body, "days", low=1, high=CERTIFICATE_DAYS_MAX, default=CLIENT_DAYS)
    return await agent.tls_client(text(body, "name"), days=days)


LOAD_HOURS = 24


async def load_of(agent: AgentPort, name: str, hours: object) -> dict[str, Any]:
    """The load of one section's container over so many hours. Raises RequestError, and what `AgentPort.load` raises."""
    try:
        wanted = float(str(hours))
    except ValueError:
        wanted = 0.0
    if not 0 < wanted <= LOAD_HOURS:
        raise RequestError(f"hours: expected a number above 0, {LOAD_HOURS} at most")
    return await agent.load(name, hours=wanted)
