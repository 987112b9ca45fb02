# SPDX-License-Identifier: GPL-2.0-or-later
"""Decodes `auth` and `agent` sections. Called by `agent.uci.decode`; secrets go into the value and nowhere
else."""

from __future__ import annotations

from agent.model.engine_address import parse_engine_address
from agent.model.listen import parse_listen
from agent.model.quantities import parse_int, parse_seconds
from agent.model.resources import AgentSettings, RegistryAuth
from agent.uci.reader import SectionReader


def decode_auth(reader: SectionReader) -> RegistryAuth:
    username, password = reader.text("username") or "", reader.text("password") or ""
    token = reader.text("token") or ""
    if not token and not (username and password):
        reader.report("the login is not complete", expected="`token`, or `username` and `password`")
    server = reader.text("serveraddress") or ""
    return RegistryAuth(server=server, username=username, password=password, token=token)


def decode_agent(reader: SectionReader) -> AgentSettings:
    """The agent's settings; a wrong option leaves its default."""
    base = AgentSettings()
    enabled, workers = reader.flag("enabled"), reader.parsed("workers", parse_int)
    settings = AgentSettings(
        enabled=base.enabled if enabled is None else enabled,
        socket=reader.text("socket") or base.socket,
        listen=reader.values("listen", parse_listen),
        cert=reader.text("cert") or base.cert,
        key=reader.text("key") or base.key,
        cors_origin=reader.texts("cors_origin"),
        allowed_host=reader.texts("allowed_host"),
        allow_exposed=reader.flag("allow_exposed") or base.allow_exposed,
        allow_container_clients=reader.flag("allow_container_clients") or base.allow_container_clients,
        resync_s=reader.parsed("resync", parse_seconds) or base.resync_s,
        resync_deep_s=reader.parsed("resync_deep", parse_seconds) or base.resync_deep_s,
        workers=workers or base.workers,
        log_level=reader.text("log_level") or base.log_level,
        daemon=reader.text("daemon") or base.daemon,
        docker_host=str(reader.parsed("docker_host", parse_engine_address) or base.docker_host),
        docker_cert_path=reader.text("docker_cert_path") or base.docker_cert_path,
        dockerd=reader.text("dockerd") or base.dockerd,
        dockerd_args=reader.words("dockerd_args") or (),
        remove=reader.flag("remove") or base.remove,
    )
    if bool(settings.cert) is not bool(settings.key):
        reader.report(
            "certificate and key go together",
            option="cert" if settings.cert else "key",
            expected="both `cert` and `key`, or none",
        )
    _check_engine(reader, settings)
    return settings


def _check_engine(reader: SectionReader, settings: AgentSettings) -> None:
    """Warns of a way to the engine that is not what it seems."""
    address, encrypted = parse_engine_address(settings.docker_host), bool(settings.docker_cert_path)
    if encrypted and address.path:
        reader.warn("it is not used: a unix socket knows no TLS", option="docker_cert_path")
    if not encrypted and not address.is_local:
        reader.warn(
            "the way to this engine is open: whoever is on it reads everything and controls the engine",
            option="docker_host",
            expected="`docker_cert_path`, the folder of a client's certificate",
        )
