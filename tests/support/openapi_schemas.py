# SPDX-License-Identifier: GPL-2.0-or-later
"""JSON Schemas of bodies and answers, by `METHOD /path`; the words are at the routes."""

from __future__ import annotations

from typing import Any

from agent.model.container_table import Level as Cost
from agent.model.dockerd.settings import DaemonAction
from agent.model.updates import UpdateState
from agent.plan.outlook import SCHEMA, STATES, Kind
from agent.status.conditions import Level, Remedy


def ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def given(name: str) -> dict[str, Any]:
    """JSON of a named schema."""
    return {"application/json": {"schema": ref(name)}}


def wrapped(key: str, schema: dict[str, Any]) -> dict[str, Any]:
    """JSON `{key: schema}`."""
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
    "message": TEXT,  # the same, where clients of the Engine API look for it
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
            "after": {"type": "string", "description": "Where it is not the first page: what was asked for"},
            "next": {"type": "string", "description": "Where there is more: `after` of the next page"},
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
            "restarts": {**WHOLE, "description": "How often the engine started it again by itself"},
            "retry_at": {"type": ["integer", "null"], "description": "Wall clock, seconds: the next try"},
            "update": {"oneOf": [{"type": "null"}, ref("Update")]},
            "level": {**LEVEL, "description": "Of the worst condition"},
            "verdict": {"type": "string", "description": "The type of the condition that decides the level"},
            "conditions": {"type": "array", "items": ref("Condition")},
            "operations": {"type": "array", "items": {"type": "object"}},
        },
    },
    "Update": {
        "type": "object",
        "description": "What the last check of a container's image found; times are wall clock, seconds",
        "properties": {
            "reference": TEXT,
            "state": {"enum": [state.value for state in UpdateState]},
            "digest": {**TEXT, "description": "Of the newer image in the registry, empty without one"},
            "running": {**_LIST, "description": "Digests of the image that runs, in the same repository"},
            "first_seen": {"type": ["number", "null"], "description": "Since when the newer image is known"},
            "size": {"type": ["integer", "null"], "description": "Bytes to download, where they are known"},
            "checked_at": {"type": ["number", "null"]},
            "retry_at": {
                "type": ["number", "null"],
                "description": "When a registry that was away or has a limit is asked again",
            },
            "why": {**TEXT, "description": "Why the state is unknown, failed or rate-limited"},
        },
    },
    "Renewed": {
        "type": "object",
        "properties": {
            "schema": {"const": 1, "description": "Counts up when a field changes its meaning"},
            "ok": {"type": "boolean", "description": "None failed, and none waits"},
            "containers": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "key": TEXT,
                        "section": TEXT,
                        "name": TEXT,
                        "outcome": {"enum": ["updated", "rolled back", "current", "waiting", "failed"]},
                        "before": {**TEXT, "description": "The image that it ran, with its digest"},
                        "image": {**TEXT, "description": "The image that it runs"},
                        "message": {**TEXT, "description": "Why it failed, or what it waits for"},
                        "output": {**TEXT, "description": "What the new one printed last, where it failed"},
                    },
                },
            },
        },
    },
    "Updates": {
        "type": "object",
        "properties": {
            "checked_at": {"type": ["number", "null"], "description": "When all were asked last"},
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
                        "pulls_left": {"type": ["integer", "null"], "description": "As the registry says"},
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
            "since": {"type": "number", "description": "Wall clock, seconds"},
            "details": {
                "type": "object",
                "additionalProperties": TEXT,
                "description": "`src` and `dest`: zones of a firewall forwarding that would help",
            },
            "level": LEVEL,
            "label": {**TEXT, "description": "A few words for the state"},
            "advice": {**TEXT, "description": "What people can do about it, where it is bad"},
            "remedy": {
                "enum": [remedy.value for remedy in Remedy],
                "description": "What helps, where a person can do something",
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
            "schema": {"const": SCHEMA, "description": "Counts up when a field changes its meaning"},
            "summary": {
                "type": "object",
                "additionalProperties": WHOLE,
                "description": "Objects by the most that is done to each, then those that wait or are in error",
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
                        "op": {**TEXT, "description": "With `then`: what will be done"},
                        "retry_in": {"type": "number", "description": "With `retry`: seconds"},
                    },
                },
                "description": "All else that is not as declared, or not yet",
            },
            "notes": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"key": TEXT, "state": {"enum": ["update", "pinned"]}, "message": TEXT},
                },
                "description": "Worth knowing of what is as declared",
            },
            "text": TEXT,
            "ok": {
                "type": "boolean",
                "description": "False with a mistake, a conflict or anything that failed",
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
            "besides": {**TEXT, "description": "What of the cause `fields` do not say"},
            "level": {"enum": [kind.value for kind in Kind]},
            "fields": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "field": {**TEXT, "description": "The option"},
                        "before": WRITTEN,
                        "after": WRITTEN,
                        "level": {"enum": [cost.value for cost in Cost]},
                        "hidden": {
                            "type": "array",
                            "items": TEXT,
                            "description": "Names of entries that changed and whose values are secret",
                        },
                    },
                },
                "description": "As the section writes them; null is unset",
            },
            "effect": {**TEXT, "description": "What it means for what runs"},
            "down_s": {
                "type": ["integer", "null"],
                "description": "Seconds, about, that a container is down",
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
            "bytes": {**WHOLE, "description": "What it gives, or gave, back at least: layers may be shared"},
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
            "text": {**TEXT, "description": "The sections as UCI text, secrets of the request as well"},
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
                "description": "For DOCKER_CERT_PATH. key.pem is secret, and kept nowhere on the router",
            },
            "expires": {"type": "number", "description": "Wall clock, seconds"},
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
                    "description": "images, volumes and build: not only what has no name",
                },
                until={**TEXT, "description": "Only what is older: a time, or a duration such as 24h"},
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
            "created": {"type": "number", "description": "Wall clock, seconds"},
            "ended": {"type": ["number", "null"]},
            "progress": {
                "type": "object",
                "properties": {
                    "bytes_done": WHOLE,
                    "bytes_total": {**WHOLE, "description": "As far as it is known by now"},
                    "percent": {
                        "type": ["integer", "null"],
                        "description": "Of the work; never goes back, and is 100 after success only",
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
            "version": {**WHOLE, "description": "Counts changes; the id of the newest event"},
        },
    },
    "Folder": {
        "type": "object",
        "properties": {
            "path": TEXT,
            "more": {"type": "boolean", "description": "There are more entries than those"},
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
                        "link": {**TEXT, "description": "Where a link leads"},
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
            "title": TEXT,
            "state": {"enum": ["open", "ending", "done", "failed"]},
            "offset": {
                **WHOLE,
                "description": "Up: where the next part begins. Down: how far the engine's answer was read",
            },
            "kept_from": {**WHOLE, "description": "Down: the first byte that can still be asked for"},
            "size": {"type": ["integer", "null"]},
            "sha256": {"type": ["string", "null"], "description": "Of the whole file, once it is known"},
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
                    "description": "UCI text by package; a package that is not given counts as it is committed",
                },
                "paths": {
                    "type": "object",
                    "properties": {"containers": TEXT, "dockerd": TEXT},
                    "description": "Where that text is from, for messages",
                },
                "sections": {
                    "type": "object",
                    "properties": {"containers": SECTIONS, "dockerd": SECTIONS},
                    "description": "Single sections by package and name, in the place of those there are; "
                    "only what follows from this change is told",
                },
                "staged": {"type": "boolean", "description": "With what `uci changes` holds"},
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
            "description": "UCI text by package; a package that is not given counts as it is committed",
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
                    "description": "The section's name; made of the container's unless given",
                },
                "commit": {"type": "boolean", "description": "Write it; else it is a preview"},
                "show_secrets": {"type": "boolean", "description": "Show what is masked otherwise"},
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
                "run": {**TEXT, "description": "Shell text with one `docker run` or more; this or `compose`"},
                "compose": {**TEXT, "description": "A compose file, JSON or YAML"},
                "project": {**TEXT, "description": "Name of the stack; that of the file, else of the folder"},
                "folder": {**TEXT, "description": "Absolute path that relative paths start from"},
                "env": {**TEXT, "description": "Text of the `.env` file"},
                "profiles": {**_LIST, "description": "Profiles whose services are wanted"},
                "commit": {"type": "boolean", "description": "Write it; else it is a preview"},
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
            "properties": {"names": {**_LIST, "description": "Sections or Docker names; all without"}},
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
                    "description": "Without a name, or all that nothing needs; as the agent section says, else dangling",
                },
                "older": {**TEXT, "description": "Only what nothing has needed for so long, such as 7d"},
                "build_cache": {"type": "boolean", "description": "The build cache too"},
                "dry_run": {"type": "boolean", "description": "Only show what would go"},
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
                            "description": "The section as it is committed now, empty where it is gone",
                        },
                        "versions": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "properties": {
                                    "number": {"type": "integer", "description": "Never used again"},
                                    "at": {
                                        "type": "number",
                                        "description": "When it was applied, unix seconds",
                                    },
                                    "text": {**TEXT, "description": "The section, secrets included"},
                                    "is_now": {
                                        "type": "boolean",
                                        "description": "The section says just this",
                                    },
                                    "changed": {
                                        **_LIST,
                                        "description": "Options that differ from the version before",
                                    },
                                    "diff": {
                                        **_LIST,
                                        "description": "Unified, from the section of now to this version",
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
                "commit": {"type": "boolean", "description": "Write it; without, it is a preview"},
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
                        "resumes": {"type": "boolean", "description": "A copy that was cut short is there"},
                        "entries": {**_MAYBE, "description": "null: counting takes long"},
                        "bytes": _MAYBE,
                        "free": WHOLE,
                        "containers": {**_LIST, "description": "Names of those that stop"},
                        "down_s": {**_MAYBE, "description": "Seconds that they stop, about"},
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
            "properties": {
                "names": {"type": "array", "items": TEXT, "description": "All where it is missing"}
            },
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
                        "at": {"type": "number", "description": "When it was begun, unix seconds"},
                        "sha256": {**TEXT, "description": "As noted beside it; empty where it is not"},
                    },
                },
            },
        )
    },
    "POST /v1/backups/{id}/restore": {
        "body": {
            "type": "object",
            "properties": {
                "volume": {**TEXT, "description": "Which one, where the section saves several"},
                "file": {**TEXT, "description": "An archive; the newest in the folder where it is missing"},
                "into": {**TEXT, "description": "A new volume that gets the files"},
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
                    "description": "Another one than what came has: 422, and nothing is handed over",
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
