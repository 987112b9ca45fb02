# SPDX-License-Identifier: GPL-2.0-or-later
"""The interfaces that the API needs (the running agent, a checker of sessions), and parsers for requests that HTTP
and ubus share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from agent.api.jobs.job_specs import JobKind, JobSpec
from agent.api.problems import RequestError, checked_id, number, refuse_unknown, text
from agent.data.volumes import Manual
from agent.model.dockerd.settings import CERTIFICATE_DAYS_MAX, CLIENT_DAYS, DaemonAction
from agent.model.issues import GivenConfig, GivenSection
from agent.model.quantities import QuantityError, parse_age
from agent.model.resources import PruneImages, RegistryAuth
from agent.status.board import StatusBoard
from agent.status.metrics import Metric, PassCounters

if TYPE_CHECKING:
    from agent.api.jobs.jobs import Jobs
    from agent.convert.requests import ImportRequest


class ProgressSink(Protocol):
    """Receives the progress of a long task; a job implements it. `take` gets a line with a `status`; `expect` and
    `sent` get bytes.
    """

    result: dict[str, Any]

    def take(self, line: Mapping[str, Any]) -> None: ...
    def expect(self, total: int) -> None: ...
    def sent(self, count: int) -> None: ...


class AgentPort(Manual, Protocol):
    """What the API can ask of the running agent. `plan` and `reconcile` raise EngineError when the engine
    is not reachable.
    """

    board: StatusBoard
    passes: PassCounters

    async def plan(self, given: GivenConfig | None = None) -> dict[str, Any]:
        """The operations that a pass would start now (`operations`), and all other differences (`pending`).

        With `given`, the plan assumes that these changes were committed. Raises ConfigError for a package that is not ours.
        """
        ...

    async def reconcile(self, *, settle_s: float = 0.0) -> dict[str, Any]:
        """Runs a full pass. Returns when the pass and all operations have ended, and `settle_s` seconds after that,
        so that a container that crashes at once is noticed.
        """
        ...

    async def validate(self, texts: Mapping[str, str]) -> list[dict[str, Any]]:
        """The mistakes in the configuration if the named packages had these texts. Writes nothing."""

    async def load(self, name: str = "", *, hours: float = 24.0) -> dict[str, Any]:
        """The current load of all containers, or of one section's container over the last `hours`. Raises
        ConfigError, ConflictError.
        """
        ...

    async def reach(self) -> dict[str, Any]:
        """Which firewall zones reach the published ports of each container that runs, managed or not: `containers`, by
        id, of `8080/tcp` to the names of zones. Empty off the router. Raises EngineError.
        """
        ...

    def load_metrics(self) -> list[Metric]:
        """The load of all containers at the last sample."""

    def api_version(self) -> str:
        """The API version that LuCI should use with the engine (`v1.47`), "" for the newest."""

    def auths(self) -> Sequence[RegistryAuth]:
        """The registry logins in UCI."""

    async def manual(self, container: str, action: str) -> None:
        """Announces a manual action (stop, remove, rename ...) on a container, by name or id: call it before the action.

        A managed container is then held as the action leaves it until its section changes or someone asks for a reconcile.
        """

    async def manual_failed(self, container: str) -> None:
        """Withdraws the action that `manual` announced: the engine refused it."""

    async def adopt(
        self, container: str, *, section: str, commit: bool, show_secrets: bool
    ) -> dict[str, Any]:
        """Describes a container that ucidockd does not manage as UCI sections: text, notes, and whether they were
        committed.

        Raises ConfigError, ConflictError, EngineError (404 if there is no such container).
        """
        ...

    async def import_text(self, request: ImportRequest) -> dict[str, Any]:
        """Converts a docker run line or a compose file to UCI sections with a report. Raises ConfigError, ConflictError."""
        ...

    def export_text(self, form: str, names: Sequence[str]) -> str:
        """Container sections as docker run lines or a compose file. Raises ConfigError for an unknown name."""

    async def prune(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Removes images that nothing needs, or lists them (`dry_run`). `asked` comes from `prune_request_of`.
        Returns what is removed, what is kept, and why. Raises EngineError, ConfigError, ConflictError.
        """
        ...

    async def notify_test(self, name: str) -> dict[str, Any]:
        """Sends a test notice through a notify section: `sent`, `error`, `took_s`. Raises ConfigError for an unknown
        section.
        """
        ...

    async def update(self, names: Sequence[str]) -> dict[str, Any]:
        """Updates containers to the newest images by a swap that can be undone. Returns `containers` with the outcome
        of each. Raises ConfigError, ConflictError, EngineError.
        """
        ...

    async def rollback(self, name: str, *, with_data: bool = False) -> dict[str, Any]:
        """Takes a container back to its previous image, and `with_data` to the data that was saved with it. Answer
        and errors as for `update`.
        """
        ...

    async def diff(self, name: str) -> dict[str, Any]:
        """Compares a container section with the container on the engine. Raises ConfigError for an unknown section."""
        ...

    async def describe(self, name: str) -> dict[str, Any]:
        """Everything about one container section. Raises ConfigError for an unknown section."""
        ...

    async def updates(self) -> dict[str, Any]:
        """The results of the last image checks: `containers`, `registries`, `checked_at`, `checking`."""
        ...

    async def check_updates(self, names: Sequence[str] = ()) -> dict[str, Any]:
        """Asks the registries about the images of these containers (without names: of all), then answers like `updates`.

        Raises ConfigError for an unknown name, ClockNotSetError, ConflictError, EngineError.
        """
        ...

    async def history(self, name: str) -> dict[str, Any]:
        """The settings that a container section has had, newest first, with secrets. Raises ConfigError."""
        ...

    async def revert(self, name: str, number: int, *, commit: bool) -> dict[str, Any]:
        """Restores an earlier version of a section: as a preview, or committed. Raises ConfigError,
        ConflictError, OSError.
        """
        ...

    async def tls_client(self, name: str, *, days: int) -> dict[str, Any]:
        """Issues a new client certificate for dockerd's TLS: `name`, `files` (PEM, including a private key),
        `expires` (unix seconds), `server_names`. Raises ConfigError, ClockNotSetError, CertificateError.
        """
        ...

    async def look_at_move(self, target: str) -> dict[str, Any]:
        """Previews a move of dockerd's data to a folder: sizes, what stops and for how long. Copies nothing.

        Raises ConflictError, ConfigError, DataError, EngineError if the move is not possible.
        """
        ...

    async def move_data(self, target: str, progress: ProgressSink) -> None:
        """Moves dockerd's data; errors as for `look_at_move`. After an error dockerd uses the old data as before."""

    async def dockerd(self, wish: DaemonAction) -> None:
        """Starts, stops or restarts dockerd soon. Raises ConflictError with the reason if that is not possible."""


class Sessions(Protocol):
    """Checks sessions: rpcd on OpenWrt, a token file elsewhere."""

    async def allowed(self, session: str, object: str, method: str) -> bool:  # noqa: A002 - ubus's word
        """Whether the session may call this method of this ubus object; False for an unknown session.

        The answer may be true for 5 s after the right was revoked. Raises BusError without an answer.
        """


# Parsers for request bodies and answers that HTTP and ubus share.


def given_of(body: Mapping[str, Any]) -> GivenConfig:
    """Parses what to plan: `packages` (package -> UCI text), `paths` (package -> the file that the text comes from),
    `sections` (package -> section -> option -> value or list; null deletes the section), `staged`. Raises RequestError.
    """
    refuse_unknown(body, ("packages", "paths", "sections", "staged"))
    staged = body.get("staged", False)
    if not isinstance(staged, bool):
        raise RequestError("`staged`: expected true or false")
    return GivenConfig(
        texts=_texts(body, "packages"), paths=_texts(body, "paths"), sections=_sections(body), staged=staged
    )


def revert_of(body: Mapping[str, Any]) -> tuple[int, bool]:
    """The version to restore, and whether to commit it. Raises RequestError."""
    refuse_unknown(body, ("version", "commit"))
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
    # skip rpcd's `.anonymous` and `.index`, which are not texts
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
    from agent.convert.requests import TEXT_MAX, ImportRequest  # late, because few runs need it

    texts = ("run", "compose", "project", "folder", "env")
    refuse_unknown(body, (*texts, "profiles", "commit"))
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
    refuse_unknown(body, ("names",))
    names = body.get("names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RequestError("`names`: expected a list of names")
    return tuple(names)


def prune_request_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """`images` (dangling, unused), `older` (7d), `build_cache`, `dry_run`. Missing values come from the
    configuration; a missing flag is false. Raises RequestError.
    """
    refuse_unknown(body, ("images", "older", "build_cache", "dry_run"))
    # Only keys that the request has: the rest is filled in from the configuration later.
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
    """The body of `POST /v1/rollback`: the name, and whether to restore its data too. Raises RequestError."""
    refuse_unknown(body, ("name", "with_data"))
    with_data = body.get("with_data", False)
    if not isinstance(with_data, bool):
        raise RequestError("`with_data`: expected true or false")
    return checked_id(text(body, "name")), with_data


async def validated(agent: AgentPort, texts: Mapping[str, Any]) -> dict[str, Any]:
    """Validates UCI text by package. Raises RequestError, ConfigError for a package that is not ours."""
    for name, uci in texts.items():
        if not isinstance(uci, str):
            raise RequestError(f"{name[:64]!r}: expected the text of a UCI file")
    issues = await agent.validate(texts)
    return {"valid": not any(issue["severity"] == "error" for issue in issues), "issues": issues}


def backup_names(body: Mapping[str, Any]) -> tuple[str, ...]:
    """The body of `POST /v1/backups`: `names`; without it, all sections. Raises RequestError."""
    refuse_unknown(body, ("names",))  # a misspelt `names` must not start every backup
    names = body.get("names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RequestError("`names`: expected a list of backup sections")
    return tuple(names)


def restore_of(body: Mapping[str, Any]) -> dict[str, str]:
    """The body of a restore: `volume`, `file` and `into`, all optional. Raises RequestError."""
    refuse_unknown(body, ("volume", "file", "into"))
    found = {name: text(body, name) for name in ("volume", "file", "into") if name in body}
    for name in ("volume", "into"):
        if found.get(name):
            checked_id(found[name])
    if found.get("file") and not found["file"].startswith("/"):
        raise RequestError("`file`: expected an absolute path")
    return found


def move_target_of(body: Mapping[str, Any]) -> str:
    """The target of a move of dockerd's data. Raises RequestError."""
    refuse_unknown(body, ("target",))
    target = text(body, "target")
    if not target.startswith("/"):
        raise RequestError("`target`: expected an absolute path, such as /mnt/sda1/docker")
    return target


def start_move(agent: AgentPort, jobs: Jobs, body: Mapping[str, Any]) -> dict[str, Any]:
    """Starts the job that moves dockerd's data. Raises RequestError, ConflictError if too many jobs are running."""
    target = move_target_of(body)
    spec = JobSpec(kind=JobKind.MOVE, title=target, path="", uploads=True)
    return {"job": jobs.start(spec, work=lambda job: agent.move_data(target, job)).as_json()}


# Manual control of dockerd and the certificates of its clients, over every entry point.


STARTED = {"started": True}


async def client_bundle(agent: AgentPort, body: Mapping[str, Any]) -> dict[str, Any]:
    """The client bundle for `{name, days}`. Raises RequestError, and what `AgentPort.tls_client` raises."""
    days = number(body, "days", low=1, high=CERTIFICATE_DAYS_MAX, default=CLIENT_DAYS)
    return await agent.tls_client(text(body, "name"), days=days)


LOAD_HOURS = 24  # of history that is kept


async def load_of(agent: AgentPort, name: str, hours: object) -> dict[str, Any]:
    """The load of a section's container over the last `hours`. Raises RequestError, and what `AgentPort.load` raises."""
    try:
        wanted = float(str(hours))
    except ValueError:
        wanted = 0.0
    if not 0 < wanted <= LOAD_HOURS:
        raise RequestError(f"hours: expected a number above 0, {LOAD_HOURS} at most")
    return await agent.load(name, hours=wanted)
