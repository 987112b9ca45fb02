# SPDX-License-Identifier: GPL-2.0-or-later
"""JSON Schemas of bodies and answers, by `METHOD /path`; the routes have the texts."""

from __future__ import annotations

from typing import Any

from agent.model.container_table import ChangeLevel
from agent.model.dockerd.settings import DaemonAction
from agent.model.updates import UpdateState
from agent.plan.description import SCHEMA, STATES, ChangeKind
from agent.status.conditions import Level, Remedy


def ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def given(name: str) -> dict[str, Any]:
    """The JSON Schema of that name."""
    return {"application/json": {"schema": ref(name)}}


def wrapped(key: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of `{key: schema}`."""
    return {
        "application/json": {"schema": {"type": "object", "properties": {key: schema}, "required": [key]}}
    }


SSE: dict[str, Any] = {"text/event-stream": {}}
RAW: dict[str, Any] = {"application/octet-stream": {}}
TEXT: dict[str, Any] = {"type": "string"}
FLAG: dict[str, Any] = {"type": "boolean"}
WHOLE: dict[str, Any] = {"type": "integer", "minimum": 0}
_LIST: dict[str, Any] = {"type": "array", "items": TEXT}
WRITTEN: dict[str, Any] = {"oneOf": [{"type": "null"}, TEXT, _LIST]}
SECTIONS: dict[str, Any] = {
    "type": "object",
    "additionalProperties": {
        "type": ["object", "null"],
        "description": "Option to value or list, with the type as `.type`; null deletes the section",
    },
}
LEVEL: dict[str, Any] = {"enum": [level.value for level in Level]}
TEXTS: dict[str, Any] = {"type": "object", "additionalProperties": TEXT}

PATH_PARAMETERS = {
    "id": "Id (or, of a container or volume, name)",
    "offset": "Where the part begins, in bytes",
    "image": "An image's name, with tag or digest, or id",
}

_AUTH = {
    "type": "object",
    "description": "A registry login; without it UCI's `auth` section for the image's registry is used",
    "properties": {"username": TEXT, "password": TEXT, "token": TEXT, "serveraddress": TEXT},
}
_BUILD = {
    "tags": {"type": "array", "items": TEXT},
    "dockerfile": TEXT,
    "target": TEXT,
    "platform": TEXT,
    "networkmode": TEXT,
    "nocache": {"type": "boolean"},
    "pull": {"type": "boolean"},
    "buildargs": TEXTS,
}


def kind(name: str, required: list[str], **properties: Any) -> dict[str, Any]:
    """One kind of job."""
    return {
        "type": "object",
        "properties": {"kind": {"const": name}, **properties},
        "required": ["kind", *required],
        "additionalProperties": False,
    }


def transfer(direction: str, target: str, required: list[str], **properties: Any) -> dict[str, Any]:
    """One kind of transfer."""
    return {
        "type": "object",
        "properties": {"direction": {"const": direction}, "target": {"const": target}, **properties},
        "required": ["direction", "target", *required],
    }


_ERROR = {
    "error": {
        "type": "object",
        "properties": {"code": TEXT, "message": TEXT},
        "required": ["code", "message"],
    },
    "message": TEXT,  # the same text in the field that clients of the Engine API read
}
SCHEMAS: dict[str, Any] = {
    "Error": {"type": "object", "properties": _ERROR, "required": ["error", "message"]},
    "ErrorOfEither": {"type": "object", "properties": _ERROR, "required": ["message"]},
    "Status": {
        "type": "object",
        "properties": {
            "version": WHOLE,
            "agent": {"type": "object"},
            "resources": {"type": "array", "items": ref("Resource")},
            "after": {"type": "string", "description": "On further pages: the requested `after`"},
            "next": {"type": "string", "description": "If there are more: the `after` of the next page"},
        },
        "required": ["version", "agent", "resources"],
    },
    "Resource": {
        "type": "object",
        "properties": {
            "key": TEXT,
            "kind": {"enum": ["container", "network", "volume", "daemon", "notify", "backup"]},
            "section": TEXT,
            "name": TEXT,
            "object_id": TEXT,
            "stack": TEXT,
            "image": {**TEXT, "description": "Of a container's section"},
            "ports": {**_LIST, "description": "Of a container's section"},
            "restarts": {**WHOLE, "description": "How often the engine restarted it"},
            "retry_at": {"type": ["integer", "null"], "description": "The next try, unix seconds"},
            "update": {"oneOf": [{"type": "null"}, ref("Update")]},
            "level": {**LEVEL, "description": "The level of the worst condition"},
            "verdict": {"type": "string", "description": "The type of the condition that decides the level"},
            "conditions": {"type": "array", "items": ref("Condition")},
            "operations": {"type": "array", "items": {"type": "object"}},
        },
    },
    "Update": {
        "type": "object",
        "description": "The result of the last check of a container's image; times are unix seconds",
        "properties": {
            "reference": TEXT,
            "state": {"enum": [state.value for state in UpdateState]},
            "digest": {
                **TEXT,
                "description": "Digest of the newer image in the registry, empty if there is none",
            },
            "running": {**_LIST, "description": "Digests of the image that runs, in the same repository"},
            "first_seen": {"type": ["number", "null"], "description": "When the newer image was found"},
            "size": {"type": ["integer", "null"], "description": "Bytes to download, if known"},
            "checked_at": {"type": ["number", "null"]},
            "retry_at": {
                "type": ["number", "null"],
                "description": "When a registry that did not answer or limits requests is asked again",
            },
            "why": {**TEXT, "description": "Why the state is unknown, failed or rate-limited"},
        },
    },
    "Renewed": {
        "type": "object",
        "properties": {
            "schema": {"const": 1, "description": "Incremented when a field changes its meaning"},
            "ok": {"type": "boolean", "description": "True if none failed and none waits"},
            "containers": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "key": TEXT,
                        "section": TEXT,
                        "name": TEXT,
                        "outcome": {"enum": ["updated", "rolled back", "current", "waiting", "failed"]},
                        "before": {**TEXT, "description": "The image before, with its digest"},
                        "image": {**TEXT, "description": "The image that it runs now"},
                        "message": {**TEXT, "description": "Why it failed, or what it waits for"},
                        "output": {
                            **TEXT,
                            "description": "The last output of the new container, if it failed",
                        },
                    },
                },
            },
        },
    },
    "Updates": {
        "type": "object",
        "properties": {
            "checked_at": {"type": ["number", "null"], "description": "When all registries were last asked"},
            "checking": {"type": "boolean"},
            "containers": {
                "type": "array",
                "items": {
                    "allOf": [
                        ref("Update"),
                        {"type": "object", "properties": {"key": TEXT, "section": TEXT, "name": TEXT}},
                    ]
                },
            },
            "registries": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "registry": TEXT,
                        "pulls_left": {
                            "type": ["integer", "null"],
                            "description": "As the registry reports it",
                        },
                        "limited_until": {"type": ["number", "null"]},
                    },
                },
            },
        },
        "required": ["checked_at", "checking", "containers", "registries"],
    },
    "Condition": {
        "type": "object",
        "properties": {
            "type": TEXT,
            "status": {"type": "boolean"},
            "reason": TEXT,
            "message": TEXT,
            "since": {"type": "number", "description": "Unix seconds"},
            "details": {
                "type": "object",
                "additionalProperties": TEXT,
                "description": "`src` and `dest`: zones of a firewall forwarding that would help",
            },
            "level": LEVEL,
            "label": {**TEXT, "description": "The state in a few words"},
            "advice": {**TEXT, "description": "What to do about it, if it is a problem"},
            "remedy": {
                "enum": [remedy.value for remedy in Remedy],
                "description": "What to do, if something can be done",
            },
        },
    },
    "Plan": {
        "type": "object",
        "properties": {
            "operations": {
                "type": "array",
                "items": ref("PlannedOperation"),
            },
            "schema": {"const": SCHEMA, "description": "Incremented when a field changes its meaning"},
            "summary": {
                "type": "object",
                "additionalProperties": WHOLE,
                "description": "Objects by the strongest operation on each; then those that wait or are in error",
            },
            "pending": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "key": TEXT,
                        "state": {"enum": list(STATES)},
                        "level": LEVEL,
                        "message": TEXT,
                        "op": {**TEXT, "description": "With `then`: the next operation"},
                        "retry_in": {"type": "number", "description": "With `retry`: seconds"},
                    },
                },
                "description": "All other differences from the declaration",
            },
            "notes": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"key": TEXT, "state": {"enum": ["update", "pinned"]}, "message": TEXT},
                },
                "description": "Notes about objects that are as declared",
            },
            "text": TEXT,
            "ok": {
                "type": "boolean",
                "description": "False after a mistake, a conflict or a failure",
            },
            "failed": {"type": "array", "items": {"type": "object"}, "description": "After a reconcile"},
            "issues": {"type": "array", "items": {"type": "object"}},
        },
    },
    "PlannedOperation": {
        "type": "object",
        "properties": {
            "op": TEXT,
            "key": TEXT,
            "cause": TEXT,
            "besides": {**TEXT, "description": "The part of the cause that `fields` do not cover"},
            "level": {"enum": [kind.value for kind in ChangeKind]},
            "fields": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "field": {**TEXT, "description": "The option"},
                        "before": WRITTEN,
                        "after": WRITTEN,
                        "level": {"enum": [cost.value for cost in ChangeLevel]},
                        "hidden": {
                            "type": "array",
                            "items": TEXT,
                            "description": "Names of changed entries whose values are secret",
                        },
                    },
                },
                "description": "In the form of the section; null means unset",
            },
            "effect": {**TEXT, "description": "The effect on running containers"},
            "down_s": {
                "type": ["integer", "null"],
                "description": "Estimated downtime of the container in seconds",
            },
            "follows": {
                "type": "array",
                "items": TEXT,
                "description": "Sections of containers that are replaced, restarted or cut with it",
            },
        },
    },
    "Issues": {
        "type": "object",
        "properties": {"valid": {"type": "boolean"}, "issues": {"type": "array", "items": ref("Issue")}},
        "required": ["valid", "issues"],
    },
    "Issue": {
        "type": "object",
        "properties": {
            "severity": {"enum": ["error", "warning"]},
            "package": TEXT,
            "section": TEXT,
            "option": TEXT,
            "index": {"type": ["integer", "null"]},
            "file": TEXT,
            "line": WHOLE,
            "message": TEXT,
            "expected": TEXT,
            "place": TEXT,
            "text": TEXT,
        },
    },
    "Prune": {
        "type": "object",
        "properties": {
            "dry_run": {"type": "boolean"},
            "images": {"enum": ["dangling", "unused"]},
            "older_s": {"type": "number"},
            "bytes": {**WHOLE, "description": "The minimum that is or was freed; layers may be shared"},
            "going": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "id": TEXT,
                        "names": {"type": "array", "items": TEXT},
                        "bytes": WHOLE,
                        "size": WHOLE,
                    },
                },
            },
            "kept": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"id": TEXT, "names": {"type": "array", "items": TEXT}, "why": TEXT},
                },
            },
            "build_cache": {"type": "object", "properties": {"bytes": WHOLE, "entries": WHOLE}},
            "failed": {
                "type": "array",
                "items": {"type": "object", "properties": {"name": TEXT, "error": TEXT}},
            },
            "space": {"type": ["object", "null"], "properties": {"free": WHOLE, "total": WHOLE}},
        },
    },
    "Import": {
        "type": "object",
        "properties": {
            "sections": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"type": TEXT, "name": TEXT, "options": {"type": "object"}},
                    "required": ["type", "name", "options"],
                },
            },
            "text": {**TEXT, "description": "The sections as UCI text, including secrets of the request"},
            "report": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "where": {**TEXT, "description": "A flag, or the path of a key"},
                        "verdict": {"enum": ["taken", "changed", "left out", "unknown"]},
                        "text": {**TEXT, "description": "How it was changed, or why it was left out"},
                    },
                    "required": ["where", "verdict", "text"],
                },
            },
            "files": {
                "type": "array",
                "items": {"type": "object", "properties": {"path": TEXT, "content": TEXT}},
                "description": "Secrets and configs that are written with the sections, mode 0600",
            },
            "warnings": {"type": "array", "items": TEXT},
            "committed": {"type": "boolean"},
        },
        "required": ["sections", "text", "report", "files", "warnings", "committed"],
    },
    "ClientBundle": {
        "type": "object",
        "properties": {
            "name": TEXT,
            "files": {
                "type": "object",
                "properties": {"ca.pem": TEXT, "cert.pem": TEXT, "key.pem": TEXT},
                "required": ["ca.pem", "cert.pem", "key.pem"],
                "description": "For DOCKER_CERT_PATH. key.pem is secret, and not kept on the router",
            },
            "expires": {"type": "number", "description": "Unix seconds"},
            "server_names": {"type": "array", "items": TEXT},
        },
        "required": ["name", "files"],
    },
    "NewJob": {
        "oneOf": [
            kind("pull", ["image"], image=TEXT, platform=TEXT, auth=_AUTH),
            kind("push", ["image"], image=TEXT, auth=_AUTH),
            kind("build", ["remote"], remote=TEXT, **_BUILD),
            kind("import", ["source", "image"], source=TEXT, image=TEXT),
            kind(
                "prune",
                ["what"],
                what={"enum": ["containers", "images", "networks", "volumes", "build"]},
                all={
                    "type": "boolean",
                    "description": "For images, volumes and build: also those with a name",
                },
                until={**TEXT, "description": "Only older objects: a time, or a duration such as 24h"},
            ),
        ]
    },
    "Job": {
        "type": "object",
        "properties": {
            "id": TEXT,
            "kind": {"enum": ["pull", "push", "build", "import", "load", "prune", "move"]},
            "title": TEXT,
            "state": {"enum": ["running", "succeeded", "failed", "cancelled"]},
            "created": {"type": "number", "description": "Unix seconds"},
            "ended": {"type": ["number", "null"]},
            "progress": {
                "type": "object",
                "properties": {
                    "bytes_done": WHOLE,
                    "bytes_total": {**WHOLE, "description": "As far as known"},
                    "percent": {
                        "type": ["integer", "null"],
                        "description": "Progress of the work; never decreases, and is 100 only after success",
                    },
                    "layers_done": WHOLE,
                    "layers_total": WHOLE,
                    "step": TEXT,
                },
            },
            "result": {
                "type": "object",
                "description": "digest, image_id, images; deleted and reclaimed_bytes of a prune",
            },
            "error": {
                "type": ["object", "null"],
                "properties": {"code": TEXT, "message": TEXT, "retryable": {"type": "boolean"}},
            },
            "version": {**WHOLE, "description": "Incremented with each change; the id of the newest event"},
        },
    },
    "Folder": {
        "type": "object",
        "properties": {
            "path": TEXT,
            "more": {"type": "boolean", "description": "True if there are further entries"},
            "entries": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "name": TEXT,
                        "kind": {"enum": ["file", "folder", "link", "device", "pipe"]},
                        "size": WHOLE,
                        "mode": {**TEXT, "description": "Octal digits"},
                        "uid": WHOLE,
                        "gid": WHOLE,
                        "modified": {**WHOLE, "description": "Unix seconds"},
                        "link": {**TEXT, "description": "The target of a link"},
                    },
                },
            },
        },
    },
    "Backups": {
        "type": "object",
        "properties": {
            "backups": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "name": TEXT,
                        "volumes": {"type": "array", "items": TEXT},
                        "schedule": {"enum": ["off", "daily", "weekly"]},
                        "window": TEXT,
                        "target": TEXT,
                        "exec": FLAG,
                        "keep": WHOLE,
                        "stop": FLAG,
                        "last": {
                            "type": ["object", "null"],
                            "description": "ended, succeeded (unix seconds), message, archives by volume",
                        },
                    },
                },
            },
            "running": {"type": ["object", "null"], "description": "what, names, volume, began, bytes"},
            "restored": {
                "type": ["object", "null"],
                "description": "How the last restore ended: name, volume, file, members or error, ended",
            },
        },
    },
    "NewTransfer": {
        "oneOf": [
            transfer("up", "archive", ["container", "path"], container=TEXT, path=TEXT),
            transfer("up", "load", [], size=WHOLE),
            transfer("up", "build", [], size=WHOLE, options={"type": "object", "properties": _BUILD}),
            transfer(
                "up", "volume", ["volume"], volume=TEXT, path=TEXT, stop=FLAG, replace=FLAG, create=FLAG
            ),
            transfer("down", "export", ["container"], container=TEXT),
            transfer("down", "archive", ["container", "path"], container=TEXT, path=TEXT),
            transfer("down", "file", ["container", "path"], container=TEXT, path=TEXT),
            transfer("down", "logs", [], container=TEXT, containers={"type": "array", "items": TEXT}),
            transfer("down", "volume", ["volume"], volume=TEXT, path=TEXT, stop=FLAG),
            transfer("down", "volume_file", ["volume", "path"], volume=TEXT, path=TEXT),
            transfer("down", "save", ["names"], names={"type": "array", "items": TEXT, "minItems": 1}),
        ]
    },
    "Transfer": {
        "type": "object",
        "properties": {
            "id": TEXT,
            "direction": {"enum": ["up", "down"]},
            "target": {**TEXT, "description": "What it is of, as in the request"},
            "title": TEXT,
            "state": {"enum": ["open", "ending", "done", "failed"]},
            "offset": {
                **WHOLE,
                "description": "Up: where the next part begins. Down: how far the engine's answer was read",
            },
            "kept_from": {**WHOLE, "description": "Down: the first byte that can still be requested"},
            "size": {"type": ["integer", "null"]},
            "sha256": {
                "type": ["string", "null"],
                "description": "The SHA-256 of the whole file, once known",
            },
            "error": {"type": ["string", "null"]},
            "job": {"type": ["string", "null"], "description": "Up: the load or build that it feeds"},
        },
    },
}

_JOB, _TRANSFER = ref("Job"), ref("Transfer")
_MAYBE: dict[str, Any] = {"type": ["integer", "null"], "minimum": 0}
_TARGET: dict[str, Any] = {
    "type": "object",
    "properties": {"target": {**TEXT, "description": "An empty folder on the new disk"}},
    "required": ["target"],
    "additionalProperties": False,
}

SHAPES: dict[str, dict[str, Any]] = {
    "GET /healthz": {"content": {"text/plain": {}}},
    "GET /metrics": {"content": {"text/plain": {}}},
    "GET /v1/status": {"content": given("Status")},
    "GET /v1/status/stream": {"content": SSE},
    "GET /v1/plan": {"content": given("Plan")},
    "POST /v1/plan": {
        "body": {
            "type": "object",
            "properties": {
                "packages": {
                    "type": "object",
                    "properties": {"containers": TEXT, "dockerd": TEXT},
                    "description": "UCI text by package; a missing package counts as committed",
                },
                "paths": {
                    "type": "object",
                    "properties": {"containers": TEXT, "dockerd": TEXT},
                    "description": "The file that the text comes from, for messages",
                },
                "sections": {
                    "type": "object",
                    "properties": {"containers": SECTIONS, "dockerd": SECTIONS},
                    "description": "Single sections by package and name, in the place of those there are; "
                    "only what follows from this change is told",
                },
                "staged": {"type": "boolean", "description": "Includes what `uci changes` shows"},
            },
            "additionalProperties": False,
        },
        "content": given("Plan"),
    },
    "POST /v1/reconcile": {"content": given("Plan")},
    "POST /v1/validate": {
        "body": {
            "type": "object",
            "properties": {"containers": TEXT, "dockerd": TEXT},
            "additionalProperties": False,
            "description": "UCI text by package; a missing package counts as committed",
        },
        "content": given("Issues"),
    },
    "POST /v1/adopt": {
        "body": {
            "type": "object",
            "properties": {
                "container": TEXT,
                "section": {
                    **TEXT,
                    "description": "The section's name; derived from the container's by default",
                },
                "commit": {"type": "boolean", "description": "Write it; otherwise it is a preview"},
                "show_secrets": {"type": "boolean", "description": "Show values that are otherwise masked"},
            },
            "required": ["container"],
            "additionalProperties": False,
        },
        "content": {"application/json": {"schema": {"type": "object"}}},
    },
    "POST /v1/import": {
        "body": {
            "type": "object",
            "properties": {
                "run": {
                    **TEXT,
                    "description": "Shell text with one or more `docker run`; either this or `compose`",
                },
                "compose": {**TEXT, "description": "A compose file, JSON or YAML"},
                "project": {
                    **TEXT,
                    "description": "Name of the stack; by default that of the file, else of the folder",
                },
                "folder": {**TEXT, "description": "Absolute path that relative paths start from"},
                "env": {**TEXT, "description": "Text of the `.env` file"},
                "profiles": {**_LIST, "description": "Profiles whose services are imported"},
                "commit": {"type": "boolean", "description": "Write it; otherwise it is a preview"},
            },
            "additionalProperties": False,
        },
        "content": given("Import"),
    },
    "POST /v1/notify/test": {
        "body": {
            "type": "object",
            "properties": {"name": {**TEXT, "description": "A notify section"}},
            "required": ["name"],
            "additionalProperties": False,
        },
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"sent": {"type": "boolean"}, "error": TEXT, "took_s": {"type": "number"}},
                }
            }
        },
    },
    "GET /v1/updates": {"content": given("Updates")},
    "POST /v1/updates/check": {
        "body": {
            "type": "object",
            "properties": {"names": {**_LIST, "description": "Sections or Docker names; all by default"}},
            "additionalProperties": False,
        },
        "content": given("Updates"),
    },
    "POST /v1/update": {
        "body": {
            "type": "object",
            "properties": {"names": {**_LIST, "description": "Sections or Docker names"}},
            "required": ["names"],
            "additionalProperties": False,
        },
        "content": given("Renewed"),
    },
    "POST /v1/rollback": {
        "body": {
            "type": "object",
            "properties": {"name": {**TEXT, "description": "A section or a Docker name"}},
            "required": ["name"],
            "additionalProperties": False,
        },
        "content": given("Renewed"),
    },
    "POST /v1/prune": {
        "body": {
            "type": "object",
            "properties": {
                "images": {
                    "enum": ["", "dangling", "unused"],
                    "description": "Without a name, or all that nothing needs; by default as the agent section says",
                },
                "older": {
                    **TEXT,
                    "description": "Only images that nothing has needed for this long, such as 7d",
                },
                "build_cache": {"type": "boolean", "description": "The build cache too"},
                "dry_run": {"type": "boolean", "description": "Only show what would be removed"},
            },
            "additionalProperties": False,
        },
        "content": given("Prune"),
    },
    "GET /v1/containers/{id}/history": {
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "section": TEXT,
                        "text": {
                            **TEXT,
                            "description": "The committed section, empty if it was removed",
                        },
                        "versions": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "properties": {
                                    "number": {"type": "integer", "description": "Never reused"},
                                    "at": {
                                        "type": "number",
                                        "description": "When it was applied, unix seconds",
                                    },
                                    "text": {**TEXT, "description": "The section, including secrets"},
                                    "is_now": {
                                        "type": "boolean",
                                        "description": "True if the section has exactly these settings",
                                    },
                                    "changed": {
                                        **_LIST,
                                        "description": "Options that differ from the version before",
                                    },
                                    "diff": {
                                        **_LIST,
                                        "description": "Unified diff from the current section to this version",
                                    },
                                },
                            },
                        },
                    },
                }
            }
        }
    },
    "POST /v1/containers/{id}/revert": {
        "body": {
            "type": "object",
            "required": ["version"],
            "properties": {
                "version": {"type": "integer", "description": "The number of a version"},
                "commit": {"type": "boolean", "description": "Write it; otherwise it is a preview"},
            },
        },
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "section": TEXT,
                        "text": TEXT,
                        "options": {"type": "object", "description": "As `sections` of `POST /v1/plan`"},
                        "notes": _LIST,
                        "committed": {"type": "boolean"},
                    },
                }
            }
        },
    },
    "GET /v1/export": {"content": wrapped("text", TEXT)},
    **{f"POST /v1/dockerd/{wish}": {"content": wrapped("started", {"const": True})} for wish in DaemonAction},
    "POST /v1/move-data": {"body": _TARGET, "content": wrapped("job", _JOB)},
    "POST /v1/move-data/check": {
        "body": _TARGET,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "source": TEXT,
                        "target": TEXT,
                        "file_system": TEXT,
                        "resumes": {
                            "type": "boolean",
                            "description": "True if an interrupted copy is there, which is continued",
                        },
                        "entries": {**_MAYBE, "description": "null while counting takes too long"},
                        "bytes": _MAYBE,
                        "free": WHOLE,
                        "containers": {**_LIST, "description": "Names of the containers that stop"},
                        "down_s": {
                            **_MAYBE,
                            "description": "Estimated time that they are stopped, in seconds",
                        },
                        "notes": _LIST,
                    },
                }
            }
        },
    },
    "POST /v1/tls/clients": {
        "body": {
            "type": "object",
            "properties": {
                "name": {**TEXT, "description": "Letters, digits and . _ @ -, a letter or digit first"},
                "days": {"type": "integer", "minimum": 1, "maximum": 3650, "default": 730},
            },
            "required": ["name"],
            "additionalProperties": False,
        },
        "content": given("ClientBundle"),
    },
    "GET /v1/containers/{id}/diff": {"content": {"application/json": {"schema": {"type": "object"}}}},
    "GET /v1/containers/{id}/describe": {"content": {"application/json": {"schema": {"type": "object"}}}},
    "GET /v1/events": {"content": SSE},
    "GET /v1/containers/{id}/logs": {"content": {"text/plain": {}, "application/x-ndjson": {}, **SSE}},
    "GET /v1/containers/{id}/stats": {"content": {"application/x-ndjson": {}, **SSE}},
    "GET /v1/containers/{id}/export": {"content": RAW},
    "GET /v1/containers/{id}/archive": {"content": RAW},
    "GET /v1/volumes/{id}/archive": {"content": RAW},
    "PUT /v1/volumes/{id}/archive": {"content": wrapped("members", WHOLE)},
    "GET /v1/volumes/{id}/list": {"content": given("Folder")},
    "GET /v1/backups": {"content": given("Backups")},
    "POST /v1/backups": {
        "body": {
            "type": "object",
            "properties": {"names": {"type": "array", "items": TEXT, "description": "All if it is missing"}},
        },
        "content": given("Backups"),
    },
    "GET /v1/backups/{id}": {
        "content": wrapped(
            "archives",
            {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "volume": TEXT,
                        "file": TEXT,
                        "bytes": WHOLE,
                        "at": {"type": "number", "description": "When it was started, unix seconds"},
                        "sha256": {**TEXT, "description": "As stored beside it; empty if it is not"},
                    },
                },
            },
        )
    },
    "POST /v1/backups/{id}/restore": {
        "body": {
            "type": "object",
            "properties": {
                "volume": {**TEXT, "description": "The volume, if the section saves several"},
                "file": {**TEXT, "description": "An archive; the newest in the folder if it is missing"},
                "into": {**TEXT, "description": "A new volume for the files"},
            },
            "additionalProperties": False,
        },
        "content": given("Backups"),
    },
    "GET /v1/images/get": {"content": RAW},
    "PUT /v1/images/load": {"content": wrapped("job", _JOB)},
    "PUT /v1/builds": {"content": wrapped("job", _JOB)},
    "POST /v1/jobs": {"body": ref("NewJob"), "content": wrapped("job", _JOB)},
    "GET /v1/jobs": {"content": wrapped("jobs", {"type": "array", "items": _JOB})},
    "GET /v1/jobs/{id}": {"content": wrapped("job", _JOB)},
    "DELETE /v1/jobs/{id}": {"content": wrapped("job", _JOB)},
    "GET /v1/jobs/{id}/stream": {"content": SSE},
    "POST /v1/transfers": {"body": ref("NewTransfer"), "content": wrapped("transfer", _TRANSFER)},
    "GET /v1/transfers": {"content": wrapped("transfers", {"type": "array", "items": _TRANSFER})},
    "GET /v1/transfers/{id}": {"content": wrapped("transfer", _TRANSFER)},
    "PUT /v1/transfers/{id}/{offset}": {"content": wrapped("transfer", _TRANSFER)},
    "GET /v1/transfers/{id}/{offset}": {"content": RAW},
    "POST /v1/transfers/{id}": {
        "body": {
            "type": "object",
            "properties": {
                "sha256": {
                    **TEXT,
                    "description": "If the received file has another one: 422, and the file is discarded",
                },
                "size": WHOLE,
            },
        },
        "content": wrapped("transfer", _TRANSFER),
    },
    "POST /v1/tickets": {
        "body": {"type": "object", "properties": {"path": TEXT}, "required": ["path"]},
        "content": {
            "application/json": {
                "schema": {"type": "object", "properties": {"ticket": TEXT, "expires_s": {"type": "number"}}}
            }
        },
    },
    "POST /v1/containers/{id}/exec": {
        "body": {
            "type": "object",
            "properties": {
                "command": {"type": "array", "items": TEXT, "minItems": 1},
                "tty": {"type": "boolean", "default": True},
                "user": TEXT,
                "env": {"type": "array", "items": TEXT},
                "workdir": TEXT,
                "privileged": {"type": "boolean"},
                "rows": WHOLE,
                "columns": WHOLE,
            },
            "additionalProperties": False,
        },
        "content": {"application/json": {"schema": {"type": "object", "properties": {"id": TEXT}}}},
    },
    "GET /v1/exec/{id}/stream": {"content": SSE},
    "POST /v1/exec/{id}/resize": {
        "body": {
            "type": "object",
            "properties": {"rows": WHOLE, "columns": WHOLE},
            "required": ["rows", "columns"],
        }
    },
}
