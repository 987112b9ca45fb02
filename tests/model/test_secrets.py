# SPDX-License-Identifier: GPL-2.0-or-later
"""Secrets are found by name, form and place; harmless things stay readable; types stay; no text costs much."""

from __future__ import annotations

import copy
import json
import shlex
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.api.problems import RequestError, http_body_of
from agent.errors import EngineError
from agent.model.identity import canonical
from agent.model.issues import Issue, issue_as_json
from agent.model.secrets import (
    MASK,
    TEXT_LIMIT,
    hidden,
    hidden_text,
    hidden_words,
    is_secret_name,
    redactor,
    secrets_in,
)
from agent.plan.container.changes import words

S = "S3CRETx9"
SECRET = [
    f"mysqld --password {S}",
    f"mysql -uroot -p{S} -h db",
    f"redis-server --requirepass {S} --port 1",
    f"postgres://app:{S}@db/x",
    f"http://u:{S}@h:80/",
    f"curl -H 'Authorization: Bearer {S}' http://h",
    f"curl -u admin:{S} http://h",
    f'curl -H "X-Api-Key: {S}" h',
    f"sh -c 'TOKEN={S} run'",
    f"--token={S}",
    f"Authorization: Basic {S}1=",
    f"sshpass -p {S} ssh h",
    f"redis-cli -a {S} ping",
    f"user:$apr1$abc${S}",
    f"mysqladmin ping -p{S}",
    f"password is {S}",
    f"GENERATED ROOT PASSWORD: {S}",
    f'{{"password":"{S}"}}',
    f"{{'password': '{S}'}}",
    f"o=username=u,password={S},vers=3",
    f"https://{S}@github.com/a/b",
    f"GET /?api_key={S}&x=1",
    f"IDENTIFIED BY '{S}'",
    f"app -p{S}",
    f"PGPASSWORD={S} psql",
    f"postgres://app:pa@{S}@db/x",
    f"redis://:{S}@h",
    f"--db-password='two {S}'",
    f"AWS_SECRET_ACCESS_KEY={S}",
    f'--password "{S} x"',
    f"cmd --api-key {S}",
    f"postgres://u:a/{S}@db",
    f"-e PASSWORD={S}",
    f"docker login -u x -p {S}",
    f"mongosh -u root -p {S}",
    f"PASSWORD = {S}",
    f"SET PASSWORD '{S}'",
    f"//u:{S}@nas/share",
    f'wget --header="Authorization: Bearer {S}"',
    f"Cookie: sid={S}",
    f"ldapsearch -w {S}",
    f"-password {S}",
    f"token: {S}",
    f'"Authorization": "token {S}"',
    f'\\"password\\": \\"{S}\\"',
    f"-----BEGIN RSA PRIVATE KEY-----\n{S}",
    f"curl --user admin:{S} http://h",
    f"u:{S}@h",
    f"'u:{S}@registry.lan:5000/app:1' is not an image",
    f"u:{S}@registry/app:1@sha256:abc",
    f"bob@corp.example:{S}@smtp.example:25",
    f"[u:{S}@h],[a@b]",
    f"proxy=u:{S}@h",
    f"u:p,{S}@h",
    f"u:p@{S}@h",
    f"u:@{S}@h",
    f"u::{S}@h",
    f":{S}@redis:6379",
    f"u:{S}@[fe80::1]:80",
    f"http://h/?next=u:{S}@h2",
    f"u:{S}@",
    f"TOKEN=$(echo {S}) run",
    f"TOKEN=`echo {S}` run",
    f"TOKEN=a\\ {S} run",
    f"TOKEN=a\\;{S} run",
    f"TOKEN='it'\"'\"'s {S}' run",
    f"--password='it'\\''s {S}' run",
    f"curl -k -u :{S} h",
    f"gpg --batch --passphrase {S} -c",
    f"mongodump --quiet --password {S}",
    f'Authorization: Digest username="x", response="{S}"',
    f'DB_PASSWORD: "{S}"',
    f"SET PASSWORD FOR x = '{S}'",
    f"echo u:{S} | chpasswd",
    f"echo {S} | docker login --password-stdin",
    f"POST https://api.telegram.org/bot123:{S}/sendMessage",
    f"mount -o user=u%{S} //h/s /m",
]
# two in one command, for a shell and as its words
BOTH = [
    f"mysqldump -u root -p{S}1 db && curl -u user:{S}2 http://h",
    f"env FOO_TOKEN={S}1 BAR_SECRET={S}2 run",
    f"run --password {S}1 --token {S}2",
    f"app -u name:{S}1 --token {S}2",
    f"app --user name:{S}1 --auth=name:{S}2",
    f"mysqldump -p{S}1 a; mysqldump -p{S}2 b",
    f"curl -fsSu a:{S}1 h; curl --user b:{S}2 h",
    f"curl --cert c.pem:{S}1 -b sid={S}2 h",
    f"redis-server --requirepass {S}1 --masterauth {S}2",
    f"openssl enc -pass pass:{S}1 -k {S}2",
    f"zip -P {S}1 x && 7z a -p{S}2 y",
    f"snmpget -v3 -A {S}1 -X {S}2 h",
    f"wg set wg0 preshared-key {S}1 && nmcli c password {S}2",
    f"htpasswd -nbB u {S}1 && htpasswd -b f u {S}2",
    f"mc alias set a http://h u {S}1 && rabbitmqctl add_user u {S}2",
    f"vault login {S}1 && wpa_passphrase ssid {S}2",
    f"postgres://u:{S}1@h1,u:{S}2@h2/d",
]
HARMLESS = [
    "env [no TOKEN] -> [TOKEN=***]; memory unset -> 64m",
    "nginx -g daemon off;",
    "docker run -p 8080:80 -p80:80 nginx",
    "mkdir -p /var/lib",
    "/bin/sh -c 'exec nginx'",
    "sh -c while true; do sleep 1; done",
    "unauthorized: authentication required",
    "org.opencontainers.image.authors=Bob",
    "denied: requested access to the resource is denied",
    "http://host:8080/path@2x.png",
    "[::1]:80",
    "/etc/passwd",
    "busybox httpd -f -p 8080",
    "basic settings are wrong",
    "option password: expected text",
    "bypass=1",
    "compass=north",
    "PATH=/usr/bin:/bin",
    "ps -ef",
    "tokenizer=fast",
    "git clone git@github.com:a/b.git",
    "ssh://git@host/x",
    "prometheus --config.file=/etc/p.yml --web.enable-lifecycle",
    "--password-file /run/secrets/x",
    "POSTGRES_PASSWORD_FILE=/run/secrets/x",
    "sha256:abcdef0123",
    "0.0.0.0:8080->80/tcp",
    "com.docker.compose.project.config_files=/x",
    "2026-11-29T02:00:00Z",
    "no basic auth credentials",
    "find . -path x -prune -print",
    "app --no-password --host x",
    "java -jar x.jar -Dport=80",
    "test -pidfile /run/x",
    "/dev/sda1 /mnt",
    "author=bob authority=x",
    "monkey=1 keyboard=us",
    "sysctl net.ipv4.ip_forward=1",
    "error: container web: port 80 is already allocated",
    "https://hub.docker.com/_/nginx",
    "ssh-ed25519",
    "mail bob@example.org",
    "http://h/a@b",
    "traefik.http.routers.x.rule=Host(`a`)",
    "key file missing",
    "the token is expired",
    "redis -p6379",
    "--mount type=bind,src=/a,dst=/b",
    'CMD ["nginx" "-g" "daemon off;"]',
    "exec_die",
    "http://a:80 and mail x@y",
    "nginx:1.27@sha256:abcdef0123",
    "registry.lan:5000/app:1@sha256:abcdef0123",
    "write to <mailto:bob@example.org>",
    "data:/srv/@home:ro",
    "/mnt/@data:/data",
    "http://[fe80::1%eth0]:80/a@b",
    "host:8080/path@2x.png",
    '{"mail":"bob@example.org"}',
    "npm:@scope/package",
    "chown -R www-data:www-data /srv",
    "docker run -u app:staff nginx",
    "app -u 1000:1000",
    "the private key /etc/x/key.pem is not readable",
    "reading the password failed 3 times",
    "curl -k -f http://h:80/",
    "openssl req -x509",
    "zip -r out.zip /srv",
    "write `key=***`, `mode=ro` or `user=x`",
]
COMMANDS: list[list[str]] = [
    ["mysqld", "--password", S],
    ["redis-server", "--requirepass", S],
    ["mysql", f"-p{S}"],
    ["sh", "-c", f"x --token {S}"],
    ["curl", "-u", f"a:{S}"],
    ["sshpass", "-p", S],
    ["redis-cli", "-a", S],
    ["app", "-password", S],
    ["redis-server", "requirepass", S],
    ["curl", "-H", f"Authorization: {S}"],
    ["curl", "-H", f"X-Token:{S}"],
    ["curl", "--user", f"a:{S}"],
    ["docker", "login", "-p", S],
    ["app", f"--token={S}"],
    ["app", f"postgres://a:{S}@h/d"],
    ["env", f"TOKEN=two words {S}", "run"],
    ["env", f"TOKEN=a;{S}", "run"],
    ["app", f"--password=two {S}"],
    ["postgres", "-c", f"ssl_passphrase_command=echo {S}"],
]
KEPT = [
    ["nginx", "-g", "daemon off;"],
    ["httpd", "-p", "8080"],
    ["docker", "run", "-p", "80:80"],
    ["postgres", "-c", "a=b"],
    ["ps", "-ef"],
    ["mkdir", "-p", "/var/lib"],
    ["app", "--password-file", "/run/secrets/p"],
    ["app", "--no-auth", "x"],
]
NAMES = [
    "PASSWORD",
    "MYSQL_ROOT_PASSWORD",
    "DBPASS",
    "authToken",
    "AWS_SECRET_ACCESS_KEY",
    "splunk-token",
    "homepage.widget.key",
    "traefik.http.middlewares.a.basicauth.users",
    "WG_PRIVATE_KEY",
    "rootpw",
    "requirepass",
    "API_KEY",
    "apiKey",
    "psk",
]
PLAIN_NAMES = [
    "PATH",
    "org.opencontainers.image.authors",
    "authority",
    "POSTGRES_PASSWORD_FILE",
    "bypass",
    "compass",
    "monkey",
    "keyboard",
    "token_type",
    "AUTH_METHOD",
    "ssh-public-key",
    "com.docker.compose.project",
    "no_password",
    "tokenizer",
    "name",
    "Passive",
]
# one in each place of the engine's answers that can hold one; the test goes through every one of them alone
PLACES: dict[str, Any] = {
    "Config": {
        "Env": [f"X={S}"],
        "Cmd": ["a", "--password", S],
        "Entrypoint": [f"--token={S}"],
        "Labels": {"a.basicauth.users": S},
        "Healthcheck": {"Test": ["CMD-SHELL", f"curl -u a:{S} http://h"]},
        "Tty": False,
    },
    "HostConfig": {
        "LogConfig": {"Type": "splunk", "Config": {"splunk-token": S, "anything": S, "max-size": "10m"}},
        "Mounts": [
            {"VolumeOptions": {"DriverConfig": {"Name": "local", "Options": {"o": f"password={S}", "x": S}}}}
        ],
    },
    "Args": ["--api-key", S],
    "Command": f"redis-server --requirepass {S}",
    "Labels": {"token": S},
    "Name": "v",
    "Mountpoint": "/m",
    "Options": {"type": "cifs", "o": f"username=u,password={S},vers=3", "sshkeyfile": S},
    "History": [
        {"CreatedBy": f"/bin/sh -c #(nop)  ENV A={S} b"},
        {"CreatedBy": f"ENV A={S}"},
        {"CreatedBy": f"ARG A={S}"},
        {"CreatedBy": f"|2 A={S} B=x {S} /bin/sh -c make"},
        {"CreatedBy": f"RUN |1 A={S} /bin/sh -c make # buildkit"},
    ],
    "Events": [
        {
            "Action": f"exec_create: echo {S}",
            "status": f"exec_start: echo {S}",
            "Actor": {"Attributes": {"API_TOKEN": S}},
        }
    ],
    "ProcessConfig": {"arguments": [f"postgres://u:{S}@h"], "entrypoint": "x"},
    "Processes": [["root", "1", f"mysql -p{S}"]],
    "Settings": {"Env": [{"Name": "D", "Value": S}]},
    "TaskTemplate": {"LogDriver": {"Name": "gelf", "Options": {"a": S}}},
    "HttpProxy": f"http://u:{S}@proxy:3128",
    "message": f"cannot mount //u:{S}@nas/x",
}


@pytest.mark.parametrize("text", SECRET)
def test_a_secret_in_a_text_is_hidden(text: str) -> None:
    assert S not in hidden_text(text)


@pytest.mark.parametrize("text", BOTH)
def test_each_secret_of_a_command_is_hidden(text: str) -> None:
    shown = hidden_text(text)
    assert S not in shown and hidden_text(shown) == shown
    assert S not in " ".join(hidden_words(shlex.split(text)))
    assert S not in hidden_text(shlex.join(["sh", "-c", text]))
    found = " ".join(secrets_in((text,)))
    assert f"{S}1" in found and f"{S}2" in found and text[:8] not in found


@pytest.mark.parametrize("text", HARMLESS)
def test_a_harmless_text_stays(text: str) -> None:
    assert hidden_text(text) == text


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_secret_word_of_a_command_is_hidden(command: list[str]) -> None:
    shown = hidden_words(command)
    assert len(shown) == len(command) and S not in " ".join(shown)
    assert shown[0] == command[0]


@pytest.mark.parametrize("command", KEPT, ids=" ".join)
def test_a_harmless_command_stays(command: list[str]) -> None:
    assert hidden_words(command) == command


def test_names_tell() -> None:
    assert [name for name in NAMES if not is_secret_name(name)] == []
    assert [name for name in PLAIN_NAMES if is_secret_name(name)] == []


def test_each_place_is_hidden_and_the_form_stays() -> None:
    before = copy.deepcopy(PLACES)
    shown = hidden(PLACES)
    assert before == PLACES, "the original is left alone"
    assert S not in json.dumps(shown)
    assert form(shown) == form(PLACES)
    assert shown["HostConfig"]["LogConfig"]["Config"]["max-size"] == "10m"
    assert (
        shown["Options"]["type"] == "cifs" and shown["Options"]["o"] == f"username=u,password={MASK},vers=3"
    )
    assert shown["History"][3]["CreatedBy"] == f"|2 {MASK} /bin/sh -c make"
    assert shown["Events"][0]["Action"] == f"exec_create: {MASK}"
    assert shown["Config"]["Env"] == [f"X={MASK}"] and shown["Config"]["Tty"] is False


def form(value: Any) -> Any:
    """Types and names."""
    if isinstance(value, dict):
        return {name: form(inner) for name, inner in value.items()}
    return [form(item) for item in value] if isinstance(value, list) else type(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["Env", "Config", "Options", "Type", "Mountpoint", "token", "CreatedBy", "o", "x"]
            ),
            inner,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_whatever_the_json_its_form_stays(value: Any) -> None:
    assert form(hidden(value)) == form(value)


@given(st.text(alphabet="abS3-=:/@ \"'\\p$\n*", max_size=60))
def test_what_is_hidden_stays_hidden(text: str) -> None:
    once = hidden_text(text)
    assert len(once) <= 4 * len(text) + 8


@pytest.mark.parametrize(
    "text",
    [
        "a" * 60000,
        "=" * 60000,
        "a=" * 30000,
        "-p" * 30000,
        "//" * 30000,
        "//a:" * 15000,
        "//a:b@" * 9000,
        " -p x" * 12000,
        "Bearer " * 9000,
        "password: " * 7000,
        '"' * 60000,
        "'a" * 30000,
        "basic " * 10000,
        "$1$" * 20000,
        "{SHA}" * 12000,
        "a:" * 30000,
        "a:/" * 20000 + "@",
        "[a:" * 20000 + "@",
        "a:***@" * 10000,
        "a" * 60000 + " u:pw@h",
        "a@sha1:" * 9000,
        "-- " * 20000,
        "-a " * 20000,
        "mysql " * 10000,
        "-----BEGIN PRIVATE KEY-----" * 2400,
        "//:@" * 15000,
        "//a@" * 15000,
        "//a:a@@@" * 7000,
        "//:" + "@" * 60000,
        "//:" + "a@" * 30000,
        " " * 60000,
        "password" * 7500,
        "password is  " * 5000,
        "x-" * 30000,
        "--a " * 15000,
        "a--" * 20000,
        "identified with " * 4000,
        "eyJ" * 20000,
        "secret" + " " * 60000,
        "a:\\'" * 15000,
        '\\"' * 30000,
        "_-" * 30000,
        "x-token" * 9000,
        'a" ' * 20000,
        'a\\" : ' * 9000,
        "pw=`" * 15000,
        "pw=$(" * 12000,
        "pw='a'\"" * 8000,
        "pw=a\\" * 12000,
        "it's pw=\"x" * 6000,
        "echo a " * 9000,
        "echo |" * 10000,
        "curl -fsSu " * 6000,
        "psk 1 " * 10000,
        "a-" * 30000 + "psk 1",
        "htpasswd -nb " * 4500,
        "htpasswd -b" + "n" * 60000,
        "mc alias set " * 4500,
        "user=a%" * 9000,
        '=""' * 20000 + "cookie:",
        'cookie:=""' * 6000,
    ],
    ids=lambda text: text[:12],
)
def test_no_text_takes_long(text: str) -> None:
    began = time.process_time()
    hidden_text(text[:TEXT_LIMIT])
    assert time.process_time() - began < 1


def test_a_text_that_is_too_long_to_be_looked_through_is_hidden_whole() -> None:
    assert hidden_text("a" * (TEXT_LIMIT + 1)) == MASK


def test_given_values_are_hidden_wherever_they_stand() -> None:
    assert redactor(("hunter22", "yes", ""))("say hunter22 and yes") == f"say {MASK} and yes"


def test_a_plan_shows_no_value_that_is_a_secret() -> None:
    old, new = (canonical(("redis-server", "--requirepass", f"{S}{n}")) for n in "12")
    for field, one, two in (
        ("command", old, new),
        ("labels", [["a.basicauth.users", S]], []),
        ("log_opts", [["splunk-token", S]], []),
        ("health", {"test": ["CMD-SHELL", f"curl -u a:{S} http://h"]}, None),
    ):
        assert S not in " ".join(words(field, one, two)), field


def test_a_mistake_quotes_no_login() -> None:
    message = "'http://u:S3CRET@[HOST]/x?token=S3CRET' is not valid here"
    made = Issue(severity="error", package="containers", section="web", option="webui", message=message)
    assert made.message == "'http://u:***@[HOST]/x?token=***' is not valid here"
    assert "S3CRET" not in str(issue_as_json(made))


def test_an_error_that_quotes_a_section_has_no_secret() -> None:
    told = "failed to mount: data: username=x,password=S3CRET,addr=127.0.0.1: no such device"
    assert "S3CRET" not in str(http_body_of(EngineError(told, status=500)))
    assert http_body_of(RequestError("password: expected text"))["message"] == "password: expected text"
