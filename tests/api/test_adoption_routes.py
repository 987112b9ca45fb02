# SPDX-License-Identifier: GPL-2.0-or-later
"""`POST /v1/adopt` and `GET /v1/containers/{id}/diff`: what they take, and how they refuse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.controller import Controller, serving


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    folder: Path = tmp_path_factory.mktemp("adopt")
    with serving(folder, f"unix://{folder}/no-engine") as made:
        yield made


BAD: dict[str, tuple[Any, str]] = {
    "no container": ({}, "an id or name is letters"),
    "a path for a name": ({"container": "../x"}, "an id or name is letters"),
    "a number for a name": ({"container": 5}, "container: expected text"),
    "a switch that is a word": ({"container": "a", "commit": "yes"}, "commit: expected true or false"),
    "an unknown name": ({"container": "a", "comit": True}, "'comit'; use `"),
    "a control character": ({"container": "a", "section": "a\nb"}, "section: expected text"),
    "a list": ([], "the body is not a JSON object"),
}


@pytest.mark.parametrize(("body", "message"), BAD.values(), ids=BAD.keys())
def test_a_request_that_is_wrong_is_refused_in_words(controller: Controller, body: Any, message: str) -> None:
    answer = controller.client.post("/v1/adopt", json=body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_what_is_asked_for_reaches_the_agent(controller: Controller) -> None:
    body = {"container": "web", "section": "site", "commit": True}
    assert controller.client.post("/v1/adopt", json=body).json() == {"section": "site", "committed": True}
    assert controller.client.get("/v1/containers/web/diff").json() == {"name": "web"}
    assert controller.client.get("/v1/containers/a%20b/diff").status_code == 400
