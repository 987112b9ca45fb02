# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of commands. Parser, help, man page, completions and docs/reference/commands.md are made from it.

A new command is a row in the module of its group and a function `handler(args) -> exit code`, which is named as
`module:function` and imported only when the command is called. Option values are in `args` under `dest`, as argparse
puts them there.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.cli.commands import configuration, containers, system
from agent.cli.commands.row import Command

# in the order of the help: what people need first comes first
GROUPS = ("Configuration", "What runs", "Containers", "Data", "The agent and dockerd", "Help")
COMMANDS: tuple[Command, ...] = (
    *configuration.COMMANDS,
    *containers.COMMANDS,
    *system.COMMANDS,
)

# words that people know from docker, compose, kubectl or terraform, with what to write here
DOCKER_WORDS: Mapping[str, str] = {
    "ps": "`ucidockd status` shows what runs",
    "ls": "`ucidockd status` shows what runs",
    "list": "`ucidockd status` shows what runs",
    "container": "`ucidockd status` shows what runs",
    "top": "`ucidockd status --watch` follows what runs",
    "stats": "`ucidockd status --watch` follows what runs",
    "compose": "`ucidockd import compose FILE` turns a compose file into sections",
    "convert": "`ucidockd import compose FILE` turns a compose file into sections",
    "up": "declare the container in /etc/config/containers, then `uci commit` and `ucidockd reconcile`",
    "apply": "`ucidockd reconcile` applies the configuration",
    "deploy": "`ucidockd reconcile` applies the configuration",
    "sync": "`ucidockd reconcile` applies the configuration",
    "reload": "`ucidockd reconcile` applies the configuration",
    "create": "declare the container in /etc/config/containers, then `uci commit` and `ucidockd reconcile`",
    "down": "delete the section (`uci delete containers.NAME; uci commit containers`), then `ucidockd reconcile`",
    "rm": "delete the section (`uci delete containers.NAME; uci commit containers`), then `ucidockd reconcile`",
    "remove": "delete the section (`uci delete containers.NAME; uci commit containers`), then `ucidockd reconcile`",
    "delete": "delete the section (`uci delete containers.NAME; uci commit containers`), then `ucidockd reconcile`",
    "validate": "`ucidockd check` lists every mistake",
    "config": "`ucidockd check` lists every mistake, `ucidockd uci show containers` prints the configuration",
    "images": "`ucidockd status` shows the images of sections, `ucidockd pull` pulls them",
    "image": "`ucidockd pull NAME` pulls an image",
    "rmi": "`docker rmi` removes an image, LuCI's page Images too",
    "kill": "`ucidockd stop NAME` stops a container",
    "pause": "`ucidockd stop NAME --once` stops a container until its next change",
    "rename": "change `option name` of the section, then `uci commit`",
    "cp": "`ucidockd volume get` and `put` copy volumes; LuCI's page Files copies to and from containers",
    "attach": "`ucidockd logs NAME -f` follows its output, `ucidockd exec -it NAME sh` opens a shell",
    "shell": "`ucidockd exec -it NAME sh` opens a shell",
    "sh": "`ucidockd exec -it NAME sh` opens a shell",
    "build": "build the image elsewhere and name it in `option image`",
    "login": "add an `auth` section with `option serveraddress`, `username` and `password`",
    "network": "declare it as a `network` section; `ucidockd status` shows them",
    "info": "`ucidockd status` shows the agent and the engine",
    "events": "`ucidockd status --watch` follows changes",
    "init": "`touch /etc/config/containers`, then declare a container in it",
    "edit": "edit /etc/config/containers, then `ucidockd check`",
    "set": "`uci set containers.NAME.OPTION=VALUE; uci commit containers`",
    "enable": "`ucidockd start NAME`",
    "disable": "`ucidockd stop NAME`",
    "move": "`ucidockd move-data TARGET` moves Docker's data to another disk",
    "migrate": "`ucidockd move-data TARGET` moves Docker's data to another disk",
    "docker": "leave out the word `docker`; `ucidockd --help` lists the commands",
    "lint": "`ucidockd check` lists every mistake",
    "inspect": "`ucidockd describe NAME` shows everything about a section",
    "get": "`ucidockd status` shows what runs",
    "completion": "the package brings completion for bash, zsh, fish and ash: open a new shell",
    "upgrade": "`ucidockd update` replaces containers with ones from newer images",
    "revert": "`ucidockd history NAME --revert N` brings earlier settings back, `ucidockd rollback NAME` the image before",
    "undo": "`ucidockd history NAME --revert N` brings earlier settings back, `ucidockd rollback NAME` the image before",
    "rollout": "`ucidockd update` and `ucidockd rollback NAME`",
    "volumes": "`ucidockd volume ls` lists them",
    "system": "`ucidockd prune` removes images that nothing needs",
    "search": "look for the image on hub.docker.com, and name it in `option image`",
    "push": "nothing: ucidockd only pulls images",
    "commit": "`uci commit containers`",
    "tag": "`option image 'NAME:TAG'` of the section",
    "save": "`ucidockd backup` saves volumes",
    "load": "LuCI's page Images loads an archive",
    "log": "`ucidockd logs NAME` shows a container's output",
    "agent": "`ucidockd run` runs the agent",
    "daemon": "`ucidockd run` runs the agent",
    "serve": "`ucidockd run` runs the agent",
}
