# SPDX-License-Identifier: GPL-2.0-or-later
"""One service of a compose file as a `container` section (compose-spec, 05-services.md).

The table `KEYS` has every key of the specification: with its option, with its own reader, or with the reason why it
is left out.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from agent.convert.compose_file import pairs, parse_env
from agent.convert.conversion import SectionDraft
from agent.convert.run_line import mount_entry, security_option
from agent.errors import ConfigError
from agent.model.kernel_names import near
from agent.model.quantities import TRUE_WORDS, QuantityError, parse_seconds
from agent.uci.decode_container import parse_env_file

if TYPE_CHECKING:
    from agent.convert.compose import _Project

OWN = "x-ucidockd"  # a mapping of options for which compose has no key
_MODES = ("bridge", "host", "none", "default")
_CONDITIONS = {
    "service_started": "started",
    "service_healthy": "healthy",
    "service_completed_successfully": "completed",
}


class ServiceReader:
    """Fills the section of one service."""

    def __init__(self, project: _Project, name: str, draft: SectionDraft) -> None:
        self.project = project
        self.conversion = project.conversion
        self.name = name
        self.draft = draft

    def read(self, service: Mapping[str, Any]) -> None:
        for key, value in service.items():
            self._key(str(key), value)
        if "image" not in service:
            built = "build" in service
            why = "build it elsewhere and give `image`" if built else "it names no image"
            self.conversion.unknown(f"services.{self.name}", why)
        if "restart" not in self.draft.options:
            self.draft.put("restart", "no", f"services.{self.name}.restart")
            self.conversion.changed(
                f"services.{self.name}.restart",
                "without it nothing restarts the container: `option restart no`",
            )
        self._read_env_files(service)
        if not service.get("networks") and not service.get("network_mode"):
            # the stack's own network, where the section's name and the Docker name resolve
            place = f"services.{self.name}.networks"
            section = self.project.network_section("default", place)
            # in the stack's network the section's name resolves, too
            aliases = self._aliases(self.project.dockers[self.name], self.draft.name)
            # a MAC address needs an entry that it can apply to
            if aliases or section != self.project.project or "mac_address" in self.draft.options:
                self.draft.put("network", ",".join([section, *aliases]), place)

    def _key(self, key: str, value: Any) -> None:
        where = f"services.{self.name}.{key}"
        if key == OWN and isinstance(value, dict):
            for option, items in value.items():
                for item in listed(items):
                    self.put(str(option), text(item), f"{where}.{option}")
        elif key.startswith("x-"):
            self.conversion.left_out(where, "an extension, which docker ignores too")
        elif (row := KEYS.get(key)) is None:
            self.conversion.unknown(where, "compose has no such key" + near(key, KEYS))
        elif row.reason:
            self.conversion.left_out(where, row.reason)
        elif value is None:
            self.conversion.left_out(where, "it is empty")
        elif row.read is not None:
            told = len(self.conversion.report)
            row.read(self, where, value)
            # each key needs a line in the report, even if its reader found nothing
            if told < len(self.conversion.report):
                return
            if _is_empty(value):
                self.conversion.left_out(where, "it is empty")
            else:
                self.conversion.unknown(where, "its value does not have a form that compose knows")
        else:
            self._plain(row, where, value)

    def _plain(self, row: ComposeKey, where: str, value: Any) -> None:
        if row.form == "flag":
            self.put(row.option, flag(value), where)
        elif value in ([], {}):
            self.conversion.left_out(where, "it is empty")
        elif row.form == "pairs" and isinstance(value, dict | list):
            for name, item in pairs(value).items():
                self.put(row.option, f"{name}={text(item)}", f"{where}.{name}")
        elif row.form == "list" and not isinstance(value, dict):
            for at, item in enumerate(listed(value)):
                place = f"{where}[{at}]" if isinstance(value, list) else where
                if isinstance(item, dict | list):
                    self.conversion.unknown(place, "expected one value")
                else:
                    self.put(row.option, text(item), place)
        elif row.form == "pairs":
            self.conversion.unknown(where, "expected names with values below it")
        elif isinstance(value, dict | list):
            self.conversion.unknown(where, "expected one value")
        else:
            self.put(row.option, text(value), where)

    def _keys(self, where: str, value: Any) -> list[tuple[str, Any]]:
        """The items of a mapping. Reports any other value that is not empty."""
        if isinstance(value, dict):
            return [(str(key), item) for key, item in value.items()]
        if value not in (None, "", []):
            self.conversion.unknown(where, "expected keys with values below it")
        return []

    def put(self, option: str, value: str, where: str, *, changed: str = "") -> None:
        """Sets an option and reports it."""
        # ask the schema, so that a key without a counterpart is reported by its own name
        if not self.draft.knows(option):
            self.conversion.left_out(where, "a section has no such option")
            return
        self.draft.put(option, value, where)
        if changed:
            self.conversion.changed(where, changed)
        else:
            self.conversion.taken(where)

    # networks

    def _aliases(self, *known: str) -> list[str]:
        """Aliases with the service's name and the names in links, without those that are known anyway."""
        names = [self.name, *self.project.link_names.get(self.name, ())]
        return [f"alias={name}" for name in dict.fromkeys(names) if name not in known]

    def networks(self, where: str, value: Any) -> None:
        named = value if isinstance(value, dict) else {text(item): None for item in listed(value)}

        def priority(settings: Any) -> int:
            given = text(settings.get("priority")) if isinstance(settings, dict) else ""
            return int(given) if given.lstrip("-").isdigit() else 0

        # for us the first network is the main one
        for name, settings in sorted(named.items(), key=lambda pair: -priority(pair[1])):
            place = f"{where}.{name}"
            section = self.project.network_section(str(name), place)
            if any(item.partition(",")[0] == section for item in self.draft.items("network")):
                self.conversion.changed(place, f"the container is in the network {section} already")
                continue
            # docker finds a container by its own name anyway
            parts = [section, *self._aliases(self.project.dockers[self.name])]
            self.conversion.taken(place)
            for key, item in self._keys(place, settings):
                parts += self._endpoint(f"{place}.{key}", key, item)
            # the file may name the service's own name as an alias too
            self.draft.put("network", ",".join(dict.fromkeys(parts)), place)

    def _endpoint(self, where: str, key: str, value: Any) -> list[str]:
        """The settings of one network entry."""
        # `priority` orders networks for older engines; in a section the order of the entries does that
        if value is None or key == "priority":
            self.conversion.taken(where)
            return []
        if key == "aliases":
            self.conversion.taken(where)
            return [f"alias={text(item)}" for item in listed(value)]
        if key in ("ipv4_address", "ipv6_address"):
            self.conversion.taken(where)
            return [f"{'ip' if key == 'ipv4_address' else 'ip6'}={text(value)}"]
        if key in ("mac_address", "gw_priority"):
            self.conversion.taken(where)
            return [f"{'mac' if key == 'mac_address' else key}={text(value)}"]
        if key == "link_local_ips":
            self.conversion.taken(where)
            return [f"link_local={text(item)}" for item in listed(value)]
        if key == "driver_opts":
            self.conversion.taken(where)
            return [f"driver_opt={name}={text(item)}" for name, item in pairs(value).items()]
        if key == "interface_name":
            self.conversion.left_out(where, "a section cannot express it")
        else:
            self.conversion.unknown(where, "compose has no such key")
        return []

    def network_mode(self, where: str, value: Any) -> None:
        mode = text(value)
        if mode in _MODES or ":" in mode:
            self.put("network_mode", self._shared(mode), where)
            return
        # any other word is the Docker name of an existing network
        section = self.project.external_network(mode)
        self.draft.put("network", section, where)
        self.conversion.changed(where, f"it is a network that exists: `list network '{section}'`")

    def namespace(self, where: str, value: Any) -> None:
        self.put(where.rpartition(".")[2], self._shared(text(value)), where)

    def _shared(self, mode: str) -> str:
        kind, _, service = mode.partition(":")
        return (
            f"service:{self.project.sections[service]}"
            if kind == "service" and service in self.project.sections
            else mode
        )

    def links(self, where: str, value: Any) -> None:
        for at, item in enumerate(listed(value)):
            service, _, alias = text(item).partition(":")
            place = f"{where}[{at}]"
            # links of a file that was cut out of a larger one may lead nowhere
            if service not in self.project.sections:
                self.conversion.left_out(place, f"there is no service {service}")
                continue
            self._depend(service, "started", place)
            if alias in self.project.link_names.get(service, ()):
                # a link gives a name in one container only
                self.conversion.changed(place, f"{alias} resolves in all containers of its networks")
            elif alias and alias != service:
                self.conversion.left_out(place, f"{service} keeps its own name; {alias} does not resolve")
            else:
                self.conversion.changed(place, f"names resolve in the network; it starts after {service}")

    # ports and volumes

    def ports(self, where: str, value: Any) -> None:
        for at, item in enumerate(listed(value)):
            place = f"{where}[{at}]"
            if not isinstance(item, dict):
                self.put("port", text(item), place)
                continue
            target, published = text(item.get("target")), text(item.get("published"))
            address = text(item.get("host_ip"))
            # compose accepts IPv6 addresses without brackets; UCI needs them, because colons separate the parts of an entry
            address = f"[{address}]" if ":" in address and not address.startswith("[") else address
            protocol = text(item.get("protocol") or "tcp")
            entry = f"{published}:{target}" if published or address else target
            entry = f"{address}:{entry}" if address else entry
            for key in item.keys() - {"target", "published", "host_ip", "protocol"}:
                if key in ("mode", "name", "app_protocol"):
                    self.conversion.left_out(f"{place}.{key}", "it has no effect on one machine")
                else:
                    self.conversion.unknown(f"{place}.{key}", "compose has no such key")
            self.put("port", entry if protocol == "tcp" else f"{entry}/{protocol}", place)

    def volumes(self, where: str, value: Any) -> None:
        for at, item in enumerate(listed(value)):
            place = f"{where}[{at}]"
            if isinstance(item, dict):
                self._long_volume(place, item)
                continue
            source, colon, rest = text(item).partition(":")
            # without a source it is an anonymous volume, as in docker
            if not colon:
                self.put("volume", source, place)
            elif source.startswith((".", "~", "/")) or "/" in source:
                path = self.project.absolute(source)
                if not path:
                    self.conversion.left_out(
                        place, "give the folder that it starts from, or an absolute path"
                    )
                    continue
                note = "" if source.startswith("/") else f"its absolute path is {path}"
                self.put("volume", f"{path}:{rest}", place, changed=note)
            else:
                name = self.project.volume_source(source, place)
                self.put("volume", f"{name}:{rest}", place)

    def _long_volume(self, where: str, item: Mapping[str, Any]) -> None:
        fields: list[tuple[str, str]] = []
        # "" has no effect here: we never ask the engine to create a missing folder, and OpenWrt has no SELinux
        inner = {
            "bind": {
                "propagation": "bind-propagation",
                "create_host_path": "",
                "recursive": "",
                "selinux": "",
            },
            "volume": {"nocopy": "volume-nocopy"},
            "tmpfs": {"size": "tmpfs-size", "mode": "tmpfs-mode"},
            "image": {},
        }
        for key, value in item.items():
            if key in inner and isinstance(value, dict):
                for name, setting in value.items():
                    known = inner[key].get(name)
                    if known == "tmpfs-mode" and isinstance(setting, int):
                        # YAML has read an octal number; mount wants its octal digits
                        fields.append((known, f"{setting:o}"))
                    elif known:
                        fields.append((known, text(setting)))
                    elif name == "subpath":
                        self.conversion.left_out(
                            f"{where}.{key}.{name}",
                            "a section cannot express it; the whole volume is mounted",
                        )
                    elif known is None:
                        self.conversion.left_out(f"{where}.{key}.{name}", "a section cannot express it")
                    else:
                        self.conversion.left_out(f"{where}.{key}.{name}", "it has no effect here")
            elif key == "read_only":
                fields.append(("readonly", text(value)))
            elif key in ("type", "source", "target"):
                named = key == "source" and item.get("type") == "volume" and value
                fields.append((key, self.project.volume_source(text(value), where) if named else text(value)))
            elif key == "consistency":
                self.conversion.left_out(f"{where}.{key}", "it has no effect on Linux")
            else:
                self.conversion.unknown(f"{where}.{key}", "compose has no such key")
        entry = mount_entry(fields, self.project.absolute)
        if isinstance(entry, str):
            self.conversion.left_out(where, entry)
            return
        option, volume, lost = entry
        self.put(option, volume, where, changed=lost)

    def volumes_from(self, where: str, value: Any) -> None:
        for at, item in enumerate(listed(value)):
            service, colon, mode = text(item).removeprefix("container:").partition(":")
            name = self.project.dockers.get(service, service)
            self.put("volumes_from", f"{name}{colon}{mode}", f"{where}[{at}]")

    def security_opt(self, where: str, value: Any) -> None:
        for at, item in enumerate(listed(value)):
            self.put("security_opt", security_option(text(item), self.project.absolute), f"{where}[{at}]")

    def tmpfs(self, where: str, value: Any) -> None:
        for at, item in enumerate(listed(value)):
            self.put("tmpfs", text(item), f"{where}[{at}]" if isinstance(value, list) else where)

    def devices(self, where: str, value: Any) -> None:
        for at, item in enumerate(listed(value)):
            if isinstance(item, dict):
                parts = [text(item.get(key)) for key in ("source", "target", "permissions")]
                self.put("device", ":".join(part for part in parts if part), f"{where}[{at}]")
            else:
                self.put("device", text(item), f"{where}[{at}]")

    def mounted_files(self, where: str, value: Any) -> None:
        """Secrets and configs: files, mounted where the container expects them."""
        kind = where.rpartition(".")[2]
        for at, item in enumerate(listed(value)):
            place = f"{where}[{at}]"
            long = item if isinstance(item, dict) else {"source": item}
            name = text(long.get("source"))
            path = self.project.shared_file(kind, name, place)
            target = text(long.get("target")) or name
            if not path:
                continue
            # compose's folders for relative targets
            if not target.startswith("/"):
                target = f"{'/run/secrets' if kind == 'secrets' else ''}/{target}"
            for key in long.keys() & {"uid", "gid", "mode"}:
                self.conversion.left_out(f"{place}.{key}", "the file keeps its owner and mode")
            self.put(
                "volume", f"{path}:{target}:ro", place, changed=f"the file {path} is mounted at {target}"
            )

    # environment

    def environment(self, where: str, value: Any) -> None:
        for name, item in pairs(value).items():
            place = f"{where}.{name}"
            if item is None:
                item = self.project.options.variables.get(name)
            if item is None:
                self.conversion.left_out(place, "compose takes its value from your shell; give it in .env")
            else:
                self.put("env", f"{name}={text(item)}", place)

    def env_file(self, where: str, value: Any) -> None:
        for at, item in enumerate(listed(value)):
            written = text(item.get("path") if isinstance(item, dict) else item)
            place = f"{where}[{at}]" if isinstance(value, list) else where
            path = self.project.absolute(written)
            if not path:
                # without a folder a relative path would be looked up below `/`
                self.conversion.left_out(place, "give the folder that it starts from, or an absolute path")
                continue
            note = "" if path == written else f"its absolute path is {path}"
            keys: Mapping[str, Any] = item if isinstance(item, dict) else {}
            is_optional = "required" in keys and flag(keys["required"]) == "0"
            if self.project.options.read_file is None:
                note = f"{note or path}; values are taken as they stand, with their quotes"
            elif is_optional and self.project.env_text(written) is None:
                self.conversion.left_out(place, f"it is optional, and there is no file {path} to read")
                continue
            self.put("env_file", path, place, changed=note)
            if is_optional:
                self.conversion.left_out(
                    f"{place}.required", "the container waits for the file: remove the line if there is none"
                )
            for key in keys.keys() - {"path", "required", "format"}:
                self.conversion.unknown(f"{place}.{key}", "compose has no such key")

    def _read_env_files(self, service: Mapping[str, Any]) -> None:
        """Sections take values of files as they stand, as `docker run` does; compose removes quotes and comments, and
        replaces variables. What is different after that becomes `list env`.
        """
        own = pairs(service.get("environment"))
        seen = {name: text(value) for name, value in own.items() if value is not None}
        seen |= self.project.options.variables
        by_compose: dict[str, str] = {}
        by_section: dict[str, str] = {}
        for item in listed(service.get("env_file")):
            long = item if isinstance(item, dict) else {"path": item}
            content = self.project.env_text(text(long.get("path")))
            if content is None:
                continue
            place = f"services.{self.name}.env_file {text(long.get('path'))}"
            try:
                plain = parse_env_file(content)
            except QuantityError:
                plain = {}  # the section is refused for it later on, with the line
            by_section |= plain
            try:
                by_compose |= plain if long.get("format") == "raw" else parse_env(content, seen)
            except ConfigError as exc:
                self.conversion.changed(
                    place, f"values are taken as they stand; compose refuses the file: {exc}"
                )
                by_compose |= plain
        for name, value in by_compose.items():
            if by_section.get(name) != value and name not in own:
                place = f"services.{self.name}.env_file {name}"
                self.draft.put("env", f"{name}={value}", place)
                self.conversion.changed(
                    place, "it is in `list env`, because sections keep quotes and comments of files"
                )

    # process

    def words(self, where: str, value: Any) -> None:
        option, words = where.rpartition(".")[2], self._split(where, value)
        if words is None:
            return
        # a section cannot have an empty list: the image's command would run after all
        if not words and option == "command":
            self.conversion.left_out(where, "a section cannot empty the image's command")
            return
        for word in words or [""]:
            self.draft.put(option, word, where)
        self.conversion.taken(where)

    def _split(self, where: str, value: Any) -> list[str] | None:
        """Splits text like a shell, as compose does, without running one. None, after reporting it, if it
        cannot be split.
        """
        try:
            return shlex.split(value) if isinstance(value, str) else [text(item) for item in listed(value)]
        except ValueError:
            self.conversion.unknown(where, "a quote is not closed")
            return None

    def stop_grace_period(self, where: str, value: Any) -> None:
        written, note = text(value), ""
        try:
            seconds = parse_seconds(written)
        except QuantityError:
            pass  # reported with the section's mistakes
        else:
            if not seconds.is_integer():
                written = str(ceil(seconds))
                note = f"the engine takes whole seconds: {written}"
        self.put("stop_timeout", written, where, changed=note)

    def image(self, where: str, value: Any) -> None:
        self.put("image", text(value), where)

    def container_name(self, where: str, _value: Any) -> None:
        self.conversion.taken(where)

    def profiles(self, where: str, _value: Any) -> None:
        """Only services of chosen profiles are read, so the key needs nothing more."""
        self.conversion.taken(where)

    def restart(self, where: str, value: Any) -> None:
        self.put("restart", "no" if value in (False, None, "") else text(value), where)

    def pull_policy(self, where: str, value: Any) -> None:
        found = {"if_not_present": "missing", "missing": "missing", "always": "always", "never": "never"}.get(
            text(value)
        )
        if found is None:
            self.conversion.left_out(
                where, f"{text(value)} is not known here; expected missing, always or never"
            )
        else:
            self.put("pull", found, where)

    def depends_on(self, where: str, value: Any) -> None:
        named = value if isinstance(value, dict) else {text(item): None for item in listed(value)}
        for service, settings in named.items():
            place = f"{where}.{service}"
            settings = settings if isinstance(settings, dict) else {}
            # a profile leaves that service out: compose ignores the dependency too
            if service not in self.project.sections:
                self.conversion.left_out(place, "none of the chosen services has this name")
                continue
            if service in self.project.without_containers:
                self.conversion.left_out(
                    place, f"{service} runs no container, so compose does not wait for it"
                )
                continue
            condition = text(settings.get("condition") or "service_started")
            if condition not in _CONDITIONS:
                self.conversion.unknown(f"{place}.condition", f"expected one of {', '.join(_CONDITIONS)}")
            self._depend(service, _CONDITIONS.get(condition, "started"), place)
            self.conversion.taken(place)
            if flag(settings.get("restart")) == "1":
                self.conversion.left_out(
                    f"{place}.restart", "a dependant restarts only when it shares a namespace"
                )
            if "required" in settings and flag(settings["required"]) == "0":
                self.conversion.left_out(f"{place}.required", "the container waits for it in any case")

    def _depend(self, service: str, condition: str, where: str) -> None:
        section = self.project.sections[service]
        entry = section if condition == "started" else f"{section}:{condition}"
        if not any(item.partition(":")[0] == section for item in self.draft.items("depends_on")):
            self.draft.put("depends_on", entry, where)

    def healthcheck(self, where: str, value: Any) -> None:
        if not isinstance(value, dict):
            self.conversion.unknown(where, "expected keys such as test below it")
            return
        # checked first, as in compose: the other keys concern a health check that is switched off
        if flag(value.get("disable")) == "1":
            self.put("health_cmd", "none", f"{where}.disable")
            return
        options = {
            "interval": "health_interval",
            "timeout": "health_timeout",
            "retries": "health_retries",
            "start_period": "health_start_period",
            "start_interval": "health_start_interval",
        }
        for key, item in value.items():
            place = f"{where}.{key}"
            if key == "test":
                self._test(place, item)
            elif key in options:
                self.put(options[key], text(item), place)
            elif key == "disable":
                self.conversion.taken(place)
            else:
                self.conversion.unknown(place, "compose has no such key")

    def _test(self, where: str, value: Any) -> None:
        words = value if isinstance(value, list) else ["CMD-SHELL", text(value)]
        if (len(words) == 1 and words != ["NONE"]) or value in ([], ""):
            self.conversion.left_out(where, "it is empty, so the image's own check counts")
            return
        kind, rest = text(words[0]), [text(word) for word in words[1:]]
        # compose accepts it as a list and as a word
        if kind == "NONE" or value == "NONE":
            self.put("health_cmd", "none", where)
        elif kind == "CMD-SHELL":
            self.put("health_cmd", " ".join(rest), where)
        elif kind == "CMD":
            self.draft.put_words("health_cmd", rest, where)
            self.conversion.taken(where)
        else:
            self.conversion.unknown(where, "expected CMD, CMD-SHELL or NONE first")

    def hook(self, where: str, value: Any) -> None:
        """`post_start` and `pre_stop`: compose takes a list of commands, a section only one."""
        for at, item in enumerate(listed(value)):
            for key, wish in item.items() if isinstance(item, dict) else [("command", item)]:
                place = f"{where}[{at}].{key}"
                if key != "command":
                    self.conversion.left_out(place, "the command runs as the container does")
                # only the first: our hook is one command, whose exit code decides what happens next
                elif at:
                    self.conversion.left_out(place, "a section runs one command: write a script for all")
                elif words := self._split(place, wish):
                    self.draft.put_words(where.rpartition(".")[2], words, place)
                    self.conversion.taken(place)

    def logging(self, where: str, value: Any) -> None:
        for key, item in self._keys(where, value):
            if key == "driver":
                self.put("log_driver", text(item), f"{where}.driver")
            elif key == "options":
                for name, setting in pairs(item).items():
                    self.put("log_opt", f"{name}={text(setting)}", f"{where}.options.{name}")
            else:
                self.conversion.unknown(f"{where}.{key}", "compose has no such key")

    def extra_hosts(self, where: str, value: Any) -> None:
        items = value.items() if isinstance(value, dict) else (_host(text(item)) for item in listed(value))
        for at, (host, addresses) in enumerate(items):
            for address in listed(addresses):
                self.put("extra_host", f"{host}:{text(address).strip('[]')}", f"{where}[{at}]")

    # limits

    def ulimits(self, where: str, value: Any) -> None:
        for name, item in self._keys(where, value):
            if isinstance(item, dict):
                soft, hard = text(item.get("soft")), text(item.get("hard"))
                entry = f"{name}={soft or hard}:{hard or soft}"
            else:
                entry = f"{name}={text(item)}"
            self.put("ulimit", entry, f"{where}.{name}")

    def blkio(self, where: str, value: Any) -> None:
        for key, item in self._keys(where, value):
            place = f"{where}.{key}"
            if key == "weight":
                self.put("blkio_weight", text(item), place)
            elif key in (
                "weight_device",
                "device_read_bps",
                "device_read_iops",
                "device_write_bps",
                "device_write_iops",
            ):
                option, amount = (
                    ("blkio_weight_device", "weight") if key == "weight_device" else (key, "rate")
                )
                for each in listed(item):
                    found = dict(self._keys(place, each))
                    if found:
                        self.put(option, f"{text(found.get('path'))}:{text(found.get(amount))}", place)
            else:
                self.conversion.unknown(place, "compose has no such key")

    def gpus(self, where: str, value: Any) -> None:
        for wanted in [value] if isinstance(value, str) else map(_gpu, listed(value)):
            self.put("gpus", wanted, where)

    def scale(self, where: str, value: Any) -> None:
        if text(value) == "0":
            self.put("state", "stopped", where)
        elif text(value) == "1":
            self.conversion.taken(where)
        else:
            self.conversion.left_out(where, "a section is one container; write one section for each")

    def deploy(self, where: str, value: Any) -> None:
        for key, item in self._keys(where, value):
            place = f"{where}.{key}"
            if key == "replicas":
                self.scale(place, item)
            elif key == "resources":
                self._resources(place, item)
            elif key == "restart_policy":
                if policy := dict(self._keys(place, item)):
                    self._restart_policy(place, policy)
            elif key in ("mode", "labels", "placement", "update_config", "rollback_config", "endpoint_mode"):
                self.conversion.left_out(place, "it is for a swarm")
            else:
                self.conversion.unknown(place, "compose has no such key")

    def _resources(self, where: str, value: Any) -> None:
        groups = dict(self._keys(where, value))
        limits = {"cpus": "cpus", "memory": "memory", "pids": "pids_limit"}
        # memory reservations have an option; processor reservations matter only in a swarm
        for group, known in (("limits", limits), ("reservations", {"memory": "memory_reservation"})):
            for key, item in self._keys(f"{where}.{group}", groups.pop(group, None)):
                place = f"{where}.{group}.{key}"
                if key in known:
                    self.put(known[key], text(item), place)
                elif key == "devices":
                    self._reserved(place, item)
                elif key == "cpus" or key == "generic_resources":
                    self.conversion.left_out(place, "it is for a swarm")
                else:
                    self.conversion.unknown(place, "compose has no such key")
        for group in groups:
            self.conversion.unknown(f"{where}.{group}", "expected limits or reservations")

    def _reserved(self, where: str, value: Any) -> None:
        for at, item in enumerate(listed(value)):
            wanted = item.get("capabilities") if isinstance(item, dict) else None
            if isinstance(item, dict) and item.get("driver") == "cdi":
                for name in listed(item.get("device_ids")):
                    self.put("device", text(name), f"{where}[{at}]")
            elif isinstance(item, dict) and "gpu" in [text(word) for word in listed(wanted)]:
                self.gpus(f"{where}[{at}]", [item])
            else:
                self.conversion.left_out(
                    f"{where}[{at}]", "only GPUs can be reserved; name other devices in devices"
                )

    def _restart_policy(self, where: str, value: Mapping[str, Any]) -> None:
        # like compose: a policy without a condition applies to any exit
        condition = text(value.get("condition") or "any")
        policy = {"none": "no", "on-failure": "on-failure", "any": "always"}.get(condition)
        if policy is None:
            self.conversion.unknown(f"{where}.condition", "expected none, on-failure or any")
            return
        attempts = text(value.get("max_attempts"))
        if attempts and policy == "on-failure":
            policy = f"on-failure:{attempts}"
        self.put("restart", policy, where, changed=f"written as `option restart {policy}`")
        for key in value.keys() & {"delay", "window"}:
            self.conversion.left_out(f"{where}.{key}", "the engine chooses its own delays")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeKey:
    """One key of a service: an option with the form of its value, a reader, or the reason to leave it out."""

    option: str = ""
    form: str = ""  # "" one value, `flag`, `list`, `pairs`
    read: Callable[[ServiceReader, str, Any], None] | None = None
    reason: str = ""


def _options(form: str, **named: str) -> dict[str, ComposeKey]:
    return {key: ComposeKey(option=option, form=form) for key, option in named.items()}


def _special(read: Callable[[ServiceReader, str, Any], None], *keys: str) -> dict[str, ComposeKey]:
    return {key: ComposeKey(read=read) for key in keys}


def _without(reason: str, *keys: str) -> dict[str, ComposeKey]:
    return {key: ComposeKey(reason=reason) for key in keys}


KEYS: dict[str, ComposeKey] = {
    **_options(
        "",
        cgroup="cgroupns",
        cgroup_parent="cgroup_parent",
        cpu_period="cpu_period",
        cpu_quota="cpu_quota",
        cpu_rt_period="cpu_rt_period",
        cpu_rt_runtime="cpu_rt_runtime",
        cpu_shares="cpu_shares",
        cpus="cpus",
        cpuset="cpuset",
        domainname="domainname",
        hostname="hostname",
        mac_address="mac_address",
        mem_limit="memory",
        mem_reservation="memory_reservation",
        mem_swappiness="memory_swappiness",
        memswap_limit="memory_swap",
        oom_score_adj="oom_score_adj",
        pids_limit="pids_limit",
        platform="platform",
        runtime="runtime",
        shm_size="shm_size",
        stop_signal="stop_signal",
        user="user",
        userns_mode="userns",
        uts="uts",
        volume_driver="volume_driver",
        working_dir="workdir",
    ),
    **_options(
        "flag",
        init="init",
        oom_kill_disable="oom_kill_disable",
        privileged="privileged",
        read_only="read_only",
        stdin_open="stdin",
        tty="tty",
    ),
    **_options(
        "list",
        cap_add="cap_add",
        cap_drop="cap_drop",
        device_cgroup_rules="device_cgroup_rule",
        dns="dns",
        dns_opt="dns_opt",
        dns_search="dns_search",
        expose="expose",
        group_add="group_add",
    ),
    **_options(
        "pairs", annotations="annotation", labels="label", storage_opt="storage_opt", sysctls="sysctl"
    ),
    **_special(ServiceReader.blkio, "blkio_config"),
    **_special(ServiceReader.words, "command", "entrypoint"),
    **_special(ServiceReader.container_name, "container_name"),
    **_special(ServiceReader.depends_on, "depends_on"),
    **_special(ServiceReader.deploy, "deploy"),
    **_special(ServiceReader.devices, "devices"),
    **_special(ServiceReader.env_file, "env_file"),
    **_special(ServiceReader.environment, "environment"),
    **_special(ServiceReader.extra_hosts, "extra_hosts"),
    **_special(ServiceReader.gpus, "gpus"),
    **_special(ServiceReader.healthcheck, "healthcheck"),
    **_special(ServiceReader.image, "image"),
    **_special(ServiceReader.links, "links"),
    **_special(ServiceReader.logging, "logging"),
    **_special(ServiceReader.mounted_files, "configs", "secrets"),
    **_special(ServiceReader.namespace, "ipc", "pid"),
    **_special(ServiceReader.network_mode, "network_mode"),
    **_special(ServiceReader.networks, "networks"),
    **_special(ServiceReader.ports, "ports"),
    **_special(ServiceReader.profiles, "profiles"),
    **_special(ServiceReader.hook, "post_start", "pre_stop"),
    **_special(ServiceReader.pull_policy, "pull_policy"),
    **_special(ServiceReader.restart, "restart"),
    **_special(ServiceReader.scale, "scale"),
    **_special(ServiceReader.security_opt, "security_opt"),
    **_special(ServiceReader.stop_grace_period, "stop_grace_period"),
    **_special(ServiceReader.tmpfs, "tmpfs"),
    **_special(ServiceReader.ulimits, "ulimits"),
    **_special(ServiceReader.volumes, "volumes"),
    **_special(ServiceReader.volumes_from, "volumes_from"),
    **_without("images are built elsewhere: build it, push it to a registry, and give `image`", "build"),
    **_without("it is about the terminal of `docker compose up`", "attach"),
    **_without("it is for development", "develop"),
    **_without("it is for Windows only", "cpu_count", "cpu_percent", "credential_spec", "isolation"),
    **_without("put the other container into the same network", "external_links"),
    **_without("give the file that it is in as well", "extends"),
    **_without("write its lines as `list label`", "label_file"),
    **_without("a section has no such option", "models", "provider"),
    **_without("it hands the engine and your registry logins to the container", "use_api_socket"),
}


def text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def flag(value: Any) -> str:
    # for booleans compose accepts the words of YAML 1.1
    return "1" if text(value).lower() in (*TRUE_WORDS, "y", "t") else "0"


def listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _is_empty(value: Any) -> bool:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return all(map(_is_empty, items)) if items else value in (None, "", [], {})


def _host(entry: str) -> tuple[str, str]:
    host, _, address = entry.partition("=" if "=" in entry else ":")
    return host, address


def _gpu(item: Any) -> str:
    """The form of `docker run --gpus`."""
    if not isinstance(item, dict):
        return text(item)
    ids = [text(word) for word in listed(item.get("device_ids"))]
    count = text(item.get("count"))
    parts = [f"device={','.join(ids)}" if ids else f"count={'all' if count in ('', 'all', '-1') else count}"]
    if driver := text(item.get("driver")):
        parts.append(f"driver={driver}")
    if wanted := [text(word) for word in listed(item.get("capabilities")) if word != "gpu"]:
        parts.append(f"capabilities={','.join(wanted)}")
    if options := [f"{name}={text(value)}" for name, value in pairs(item.get("options")).items()]:
        parts.append(f"options={','.join(options)}")
    return ",".join(parts) if len(parts) > 1 or ids else parts[0].removeprefix("count=")
