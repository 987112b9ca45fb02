# SPDX-License-Identifier: GPL-2.0-or-later
"""Hides secrets: `hidden` in JSON of the engine, `hidden_text` in one text. Pure; takes time linear in the input.

Names tell (`DB_PASSWORD=`, `--token`, a label `...basicauth.users`), forms tell (`scheme://user:pass@`, `Bearer X`, hashes
of passwords, private keys), and so do places, whatever stands there: variables of the environment, build arguments,
options of volumes and log drivers, commands of `docker exec`. A mask keeps the type: text becomes text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

MASK = "***"
TEXT_LIMIT = 64 * 1024  # characters; a longer text is not looked through, but hidden whole

# names

_WORDS = re.compile(
    r"pass(?:w(?:or)?d|phrase|code)|secret|tokens?(?![a-z])|credential|htpasswd|cookie|bearer"
    r"|(?:api|private|secret|access|encrypt(?:ion)?|master|root|app|auth|sign(?:ing)?|session|service|licen[cs]e"
    r"|preshared|shared|account|storage|admin|deploy|client|server|user|wg|web|jwt|hmac|aes)[_.-]?key"
    r"|(?:^|[^a-z])(?:pw|pwd|psk|pin|jwt|otp|totp|salt)(?![a-z])|[._-]key$|^key$"
    r"|authorization(?![a-z])|auth(?![a-z])|(?<!by)(?<!com)(?<!tres)pass(?![a-z])|(?:root|admin|user|db|mysql)pw$",
    re.IGNORECASE,
)
_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NO_SECRETS = re.compile(
    r"(?:[_.-]|^)(?:no|skip|without|disable|enable|allow|use|require|with)[_.-]"
    r"|(?:[_.-]|(?<=[a-z])(?=[A-Z]))(?:file|path|dir|stdin|prompt|policy|length|ttl|expiry|expires?|timeout|type|name|method"
    r"|enabled|disabled|required|server|endpoint|issuer|realm|host|port|plugins?)$"
    r"|public[_.-]?key",
    re.IGNORECASE,
)


@lru_cache(4096)
def is_secret_name(name: str) -> bool:
    """Whether an environment variable, option, label or field of this name holds a secret by convention."""
    spaced = _HUMPS.sub("_", name[-256:])
    return _WORDS.search(spaced) is not None and _NO_SECRETS.search(spaced) is None


# text

# a word of a shell: what is quoted, substituted or escaped in it belongs to it
_QUOTED = r"""(?:"(?:[^"\\]|\\.)*+"|'[^']*+')"""
_BARE = r"""(?:\$\([^()]*+\)|`[^`]*+`|\\[^"]|[^\s;&|"'<>\\`])++"""
_VALUE = rf"""(?:{_QUOTED}|"[^"]*+|'[^']*+|\\"(?:[^"\\]|\\(?!"))*+(?:\\")?|{_BARE})"""
_REST = re.compile(rf"{_QUOTED}|(?![,)\]}}]){_BARE}")
_ARGUMENT = re.compile(r"([^\s;&|\"'=]++)=")
_QUOTES = re.compile(r"""\\.|["'`]""")
_NAME = re.compile(r"(?<![\w.-])([\w.-]++)(?:\\?[\"']?\s?=\s?|\\?[\"']\s*+:\s*+(?=[\"']|\\[\"']))")
_GIVEN = re.compile(_VALUE)
_OPTION = re.compile(r"(?<![\w-])-\w|--")
_FLAG = re.compile(r"(?<![\w.-])(--?[A-Za-z][\w.-]*+)\s++(?!--)")
_URL = re.compile(
    r"((?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]*+:)?//(?!\[)([^\s/@:\"'<>]*+)(?::(?!\d++(?:[/?#]|$))([^\s\"'<>]{0,256}))?@"
)
_WORD = re.compile(r"(?<![^\s\"'])[^\s\"'@]*+@[^\s\"']*+")  # begins where a word does, so that time is linear
_DIGEST = re.compile(r"@sha\d{1,3}:")
_COLON = re.compile(r"\[[0-9A-Fa-f:.]*+(?:%[\w.-]*+)?\]|:")  # or an IPv6 address, which has some
# follows a colon that does not begin a password: in a path, an address, a port or a masked login
_NO_LOGIN = re.compile(r"[/:]|\d{1,5}/|\*{3}@")
_ADDRESSES = ("mailto", "sip", "sips", "xmpp", "acct")
_HEADER = re.compile(
    r"((?<![\w-])(?:(?:proxy-)?authorization|(?:set-)?cookie|private-token|x-[\w-]{0,64}(?:token|key|auth|secret)[\w-]{0,64})"
    r"\\?[\"']?\s*:\s*\\?[\"']?)((?:[^\r\n\"'\\]|(?<==)\"[^\r\n\"\\]*+\")++)",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(bearer)(\s++)([^\s,;\"'\\]++)", re.IGNORECASE)
_BASIC = re.compile(r"\b(basic\s++)([A-Za-z0-9+/_-]{6,}=*+)", re.IGNORECASE)
_SAID = re.compile(
    r"((?:pass(?:word|wd|phrase)|secret|token|api[ _-]?key)\b\s?(?::|\bis\b)\s{0,8}+(?:\\?[\"'])?+)"
    r"([^\s,;\"']++)(?=(\s{0,8}+$)?)",
    re.IGNORECASE | re.MULTILINE,
)
_SQL = re.compile(
    r"\b(identified\s{1,8}(?:with\s{1,8}\S{1,64}\s{1,8})?by|password(?:\s{1,8}for\s{1,8}\S{1,64})?)([\s=(]{1,8})('[^']*+'?|\"[^\"]*+\"?)",
    re.IGNORECASE,
)
_HASH = re.compile(
    r"\$(?:1|2[abxy]?|5|6|7|y|gy|apr1|argon2\w*+|scrypt|pbkdf2[\w-]*+)\$[^\s\"',:]++|\{S?SHA\d*\}[\w+/=]++"
)
_TOKEN = re.compile(
    r"(?<![\w-])(?:eyJ[\w-]{8,}+\.[\w-]++\.[\w-]*+|gh[pousr]_\w{16,}+|github_pat_\w{16,}+|glpat-[\w-]{16,}+|dckr_pat_[\w-]{16,}+"
    r"|xox[abprs]-[\w-]{8,}+|AKIA[0-9A-Z]{16}|SWMTKN-[\w-]++|sk-[\w-]{20,}+)"
    # addresses that are secrets themselves
    r"|(?<=hooks\.slack\.com/services/)[\w/-]++|(?<=api\.telegram\.org/bot)[\w:-]++|(?<=/api/webhooks/)\d++/[\w-]++"
)
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)")
_WORD_LIKE = re.compile(r"[A-Za-z][a-z]*[.,:;!?)]?")
_PLAIN_P = re.compile(r"[\d.:/,-]+(?:/?(?:tcp|udp|sctp))?|[/.=:].*|[a-z_-]+(?:=.*)?")
_REDIS = ("requirepass", "masterauth", "masterpass")
# programs, and their short options that take a secret
_SHORT = {
    "p": ("mysql", "mariadb", "mongo", "sshpass", "docker login", "podman login", "nerdctl login", "rabbitmqadmin", "7z",
          "rar", "mcrcon", "rcon-cli", "cqlsh", "ncftp", "useradd", "usermod"),
    "a": ("redis-cli", "valkey-cli", "keydb-cli"),
    "u": ("curl", "lftp"),
    "U": ("curl", "smbclient", "rpcclient"),
    "E": ("curl",),
    "b": ("curl",),
    "w": ("ldap",),
    "P": ("mosquitto_", "ipmitool", "sshpass", "zip", "unzip", "sqlcmd"),
    "k": ("openssl",),
    "A": ("snmp",),
    "X": ("snmp",),
    "c": ("snmp",),
    "N": ("ssh-keygen",),
}  # fmt: skip
_SHORT_ARGS = re.compile(r"(?<![\w-])-([A-Za-z])([^\S\r\n]*+)")
_CLUSTER = re.compile(r"(?<![\w-])-[fsSkLvigGIjlnNOqRaB#]{1,12}([uUEb])([^\S\r\n]*+)")  # of curl: `-fsSu`
_PROGRAMS = sorted({word for names in _SHORT.values() for name in names for word in name.split()})
_PROGRAM = re.compile(r"(?<![\w.-])(" + "|".join(_PROGRAMS) + r")[\w-]*+(?=[\s\"']|$)")
# options of many programs that take `user:password`, or only a user
_LOGINS = "-[uUa]|--(?:proxy-)?user|--(?:proxy-)?cert|--auth|--basic-auth|--userpass|--login"
_LOGIN = re.compile(rf"(?<![\w-])(?:{_LOGINS})(?:\s++|=)")
_USER = re.compile(r"[^%:,]*+[%:,]")
_LOGIN_OPTION = re.compile(_LOGINS)
_ANY = "A:b1"  # a value that no rule takes for a harmless one
_NO_PASSWORD = re.compile(r"\d*|[/\\].*|\*{3}.*", re.DOTALL)
_OF_SAMBA = re.compile(r"\b(user(?:name)?=[^\s,%=]{1,64}%)([^\s,\"']++)")  # mount -o user=name%password
# what stands before a secret that neither an option nor a form marks
_BEHIND = (
    r"(?<![\w.-])(?:htpasswd\s+-(?=\w{0,9}b)\w{0,9}n\w{0,9}\s+\S+|htpasswd\s+-(?!\w{0,9}n)\w{0,9}b\w{0,9}\s+\S+\s+\S+"
    r"|rabbitmqctl\s+(?:add_user|change_password|authenticate_user)\s+\S+|isql\s+\S+\s+\S+"
    r"|mc\s+(?:alias\s+set|config\s+host\s+add)\s+\S+\s+\S+\s+\S+|vault\s+login|wpa_passphrase\s+\S+"
    r"|cloudflared\s+service\s+install|ngrok\s+(?:config\s+add-)?authtoken|caddy\s+hash-password\s+(?:--plaintext|-p)"
    r"|smbclient\s+//\S+|openssl\s+passwd(?:\s+-\w+)?|mkpasswd)"
)
_BEHIND_THAT = re.compile(rf"{_BEHIND}\s+(?!-)")
_BEHIND_WORDS = re.compile(rf"{_BEHIND}$")
# `psk VALUE`, where the value does not look like the next word of a sentence
_NAMED = re.compile(
    r"(?<![./])(?:passw(?:or)?d|passphrase|psk|(?:private|preshared|access)[_-]key|auth[_-]?(?:token|key)|api[_-]key)"
    r"[^\S\r\n]+(?=[^\s:;,.]*\d)(?!-|[\d.:,/]+(?:\s|$)|[./(\[{<])",
    re.IGNORECASE,
)
_HINT = re.compile(
    r"[pP]ass|PASS|psk|PSK|[kK]ey|KEY|[aA]uth|AUTH|login|[_ ]user|isql|smbclient|mc |install|echo|printf"
)
_PIPED = re.compile(
    r"\b((?:echo|printf)\s{1,8})([^|;&\r\n]{1,256})(?=\|[^|;&]{0,256}(?:--password-stdin|--password-file=-|chpasswd|passwd|kinit|cryptsetup|sudo\s+-S))"
)


def hidden_text(text: str) -> str:
    """Any text without its secrets: a command, a message, a line of output, a value."""
    if len(text) > TEXT_LIMIT:
        return MASK
    # the order counts: a login inside of a URL is gone before `name=value` could cut the URL, and what is masked already
    # is left alone. Most texts hold nothing, so the cheap tests come before the patterns
    if "PRIVATE KEY" in text:
        text = _PEM.sub(MASK, text)
    if "//" in text:
        text = _URL.sub(_without_login, text)
    if "@" in text and ":" in text:
        text = _WORD.sub(_without_bare_login, text)
    if "$" in text or "{" in text:
        text = _HASH.sub(MASK, text)
    if "=" in text or ":" in text:
        text = _without_values(text)
        text = _HEADER.sub(rf"\1{MASK}", text)
        text = _OF_SAMBA.sub(rf"\1{MASK}", text)
    if "-" in text and _OPTION.search(text):
        text = _masked(
            text, _FLAG, lambda found, value: MASK if is_secret_name(found[1].lstrip("-")) else value
        )
        text = _short_options(text)
    if " " in text and _HINT.search(text):
        text = _masked(text, _BEHIND_THAT, lambda _, value: MASK)
        text = _masked(text, _NAMED, lambda _, value: MASK)
        text = _PIPED.sub(rf"\1{MASK} ", text)
    text = _BEARER.sub(rf"\1\2{MASK}", text)
    # `Basic dXNlcjpwYXNz`, but not `basic settings`
    text = _BASIC.sub(lambda found: found[0] if _WORD_LIKE.fullmatch(found[2]) else found[1] + MASK, text)
    text = _SAID.sub(_without_said, text)
    text = _SQL.sub(rf"\1\2'{MASK}'", text)
    return _TOKEN.sub(MASK, text)


def hidden_pair(name: str, value: str) -> str:
    """`name=value` for people."""
    return f"{name}={hidden_value(name, value)}"


def hidden_value(name: str, value: str) -> str:
    """The value of an option, a label or a field of that name."""
    return MASK if value and is_secret_name(name) else hidden_text(value)


def hidden_words(words: Sequence[str]) -> list[str]:
    """A command as a list: the word after `--password` is one."""
    made: list[str] = []
    programs, before = "", ""
    for number, word in enumerate(words):
        # `--db-password VALUE` by its name; redis takes its passwords behind words without dashes
        is_option = before.startswith("-") and "=" not in before
        is_given = is_secret_name(before.lstrip("-")) if is_option else before.lower() in _REDIS
        option = _CLUSTER.fullmatch(before) or _SHORT_ARGS.fullmatch(before)
        is_script = before[:1] == "-" and before[-1] == "c" and words[number - 2].endswith(("sh", "su"))
        name = _ARGUMENT.match(word) if len(words) > 1 and not is_script else None
        if is_given and not word.startswith("--"):
            shown = MASK
        elif name and is_secret_name(name[1].lstrip("-")):
            shown = f"{name[0]}{MASK}"  # one argument, whatever stands in it
        elif option and _is_secret_option(programs, option[1]):
            shown = _short_value(option[1], word)
        elif _LOGIN_OPTION.fullmatch(before):
            shown = _login(programs, word)
        elif _is_behind(words, number):
            shown = MASK
        elif programs and word.startswith("-") and len(word) > 2 and word[1] != "-":
            shown = hidden_text(f"{programs} {word}")[len(programs) + 1 :]
        else:
            shown = hidden_text(word)
        made.append(shown)
        before = word
        for found in _PROGRAM.findall(word[:4096]):
            programs = f"{programs} {found}".strip()[:256]
    return made


def _without_login(found: re.Match[str]) -> str:
    scheme, user, password = found[1] or "", found[2], found[3]
    if password is None:  # a name alone is one, a token is not: https://TOKEN@host
        is_name = not scheme or scheme.lower() in ("ssh:", "git+ssh:", "sftp:", "git:", "rsync:")
        return f"{scheme}//{user if is_name or not user else MASK}@"
    return f"{scheme}//{user}:{MASK}@"


def _without_bare_login(found: re.Match[str]) -> str:
    """`user:password@host` without a scheme: from the first colon that a password can follow to the last `@`.

    A name with a tag and a digest is none, nor is a path, a port, an IPv6 address or a mail address behind its scheme.
    """
    word = found[0]
    digest = _DIGEST.search(word)
    # The last `@` before a digest: passwords may hold one, host names do not.
    end = word.rfind("@", 0, digest.start() if digest else len(word))
    for colon in _COLON.finditer(word, 0, max(end, 0)):
        at = colon.end()
        is_mail = word[max(at - 8, 0) : at - 1].rpartition("<")[2].lower() in _ADDRESSES
        # What follows looks like a port or a tag: then there is no password to hide.
        if at < end and colon[0] == ":" and not is_mail and not _NO_LOGIN.match(word, at):
            return f"{word[:at]}{MASK}{word[end:]}"
    return word


def _is_behind(words: Sequence[str], number: int) -> bool:
    """Whether the words before one say that it is a secret."""
    before = " ".join(words[max(number - 6, 0) : number])[-512:]
    last = before.rpartition(" ")[2]
    named = _NAMED.search(f"{last} {words[number]}")
    is_named = named is not None and named.end() == len(last) + 1
    return not words[number].startswith("-") and (is_named or _BEHIND_WORDS.search(before) is not None)


def _masked(text: str, heads: re.Pattern[str], shown: Callable[[re.Match[str], str], str]) -> str:
    """What stands behind each head, to the end of the shell's word, as `shown` gives it."""
    made, at, done = [], 0, 0
    read, quote = 0, ""  # which quote is open where we are
    while (found := heads.search(text, at)) is not None:
        at = found.end()
        # a value may hold other heads: it is left only where it is hidden
        if shown(found, _ANY) == _ANY or (value := _GIVEN.match(text, at)) is None:
            continue
        end = value.end()
        if not found[0].rstrip().endswith(":"):
            for mark in _QUOTES.finditer(text, read, at):
                if len(mark[0]) == 1 and (not quote or quote == mark[0]):
                    quote = "" if quote else mark[0]
            read = at
            if quote == "`" and quote in value[0]:  # the name is in the substitution, or in code of a message
                end = text.index(quote, at)
            while text[end : end + 1] != (quote or "\0") and (more := _REST.match(text, end)) is not None:
                end = more.end()
        given = text[at:end]
        if (new := shown(found, given)) != given:
            made += [text[done:at], new]
            at = done = end
    return "".join([*made, text[done:]])


def _without_values(text: str) -> str:
    """`NAME=value`, `"name": "value"`. A value that is kept may hold others: `o=username=a,password=b`."""

    def shown(found: re.Match[str], value: str) -> str:
        is_masked = value.startswith(MASK) and not value.removeprefix(MASK).strip(")],.}")
        # `[TOKEN=***]` keeps its bracket
        return MASK if is_secret_name(found[1].lstrip("-")) and not is_masked else value

    return _masked(text, _NAME, shown)


def _without_said(found: re.Match[str]) -> str:
    """`password: hunter2`, but not `password: expected text`: prose continues after a word."""
    goes_on = found[3] is None or not found[1].rstrip().endswith(":")
    if goes_on and _WORD_LIKE.fullmatch(found[2]):
        return found[0]
    return found[1] + MASK


def _short_options(text: str) -> str:
    programs = " ".join(_PROGRAM.findall(text))

    def shown(found: re.Match[str], value: str) -> str:
        option, gap = found[1], found[2]
        if _is_secret_option(programs, option):
            return _short_value(option, value)
        # Without a known program: `-pSECRET` is how mysql takes its password, and `-p8080:80` is a port.
        return MASK if option == "p" and not gap and not programs and not _PLAIN_P.fullmatch(value) else value

    if "curl" in programs:
        text = _masked(text, _CLUSTER, shown)
    text = _masked(text, _SHORT_ARGS, shown)
    return _masked(text, _LOGIN, lambda _, value: _login(programs, value))


def _is_secret_option(programs: str, option: str) -> bool:
    return any(name in programs for name in _SHORT.get(option, ()))


def _short_value(option: str, value: str) -> str:
    if value.startswith("-"):
        return value
    if option in ("u", "U", "E"):  # user:password, user%password of Samba, user,password of lftp
        found = _USER.match(value.strip("\"'"))
        return f"{found[0]}{MASK}" if found else value
    return MASK


def _login(programs: str, value: str) -> str:
    """`user:password`; a user and a group, as numbers or of `docker run`, are none."""
    user, sign, password = value.strip("\"'").partition(":")
    is_group = _NO_PASSWORD.fullmatch(password) or password == user or "docker" in programs
    return f"{user}:{MASK}" if sign and not is_group else value


# JSON of the engine

_ENVIRONMENT = frozenset({"env", "environment"})
_LOG_OPTIONS = frozenset(
    {
        "max-size", "max-file", "max-buffer-size", "mode", "compress", "labels", "labels-regex", "env", "env-regex", "tag",
        "syslog-facility", "syslog-format", "cache-disabled", "cache-max-size", "cache-max-file", "cache-compress",
    }
)  # fmt: skip
_VOLUME_OPTIONS = frozenset({"type", "o", "device", "size", "uid", "gid"})
_EXEC = re.compile(r"(exec_(?:create|start|detach)): ?[\s\S]*")
_BUILT = re.compile(r"(?:/bin/sh -c #\(nop\) +)?(ENV|ARG) +([A-Za-z_]\w*)(=)?")
_ARGS = re.compile(r"(RUN )?\|(\d{1,4}) ")


def hidden(value: Any) -> Any:
    """A copy of decoded JSON for readers, who may see what there is but no secrets. Names, numbers and forms stay.

    Raises RecursionError for what is nested too deeply.
    """
    if isinstance(value, dict):
        return {name: _hidden_field(str(name), inner, value) for name, inner in value.items()}
    if isinstance(value, list):
        return _hidden_list(value)
    return hidden_text(value) if isinstance(value, str) else value


def _hidden_list(items: list[Any]) -> list[Any]:
    if items and all(isinstance(item, str) for item in items):
        return list(hidden_words(items))
    return [hidden(item) for item in items]


def _hidden_field(name: str, value: Any, around: Mapping[str, Any]) -> Any:
    if name.lower() in _ENVIRONMENT:
        return _environment(value)
    if isinstance(value, str):
        # an event of an exec has its whole command line behind the colon
        if name in ("Action", "status") and (found := _EXEC.match(value)):
            return f"{found[1]}: {MASK}"
        return _built(value) if name == "CreatedBy" else hidden_value(name, value)
    if isinstance(value, list):
        is_secret = is_secret_name(name) and any(isinstance(item, str) for item in value)
        return (
            [MASK if isinstance(item, str) else hidden(item) for item in value]
            if is_secret
            else _hidden_list(value)
        )
    if isinstance(value, dict) and (kept := _options_of(name, around)) is not None:
        return {key: _option(key, inner, kept) for key, inner in value.items()}
    return hidden(value)


def _options_of(name: str, around: Mapping[str, Any]) -> frozenset[str] | None:
    """Which options of a driver are not secret here; None if these are not options of a driver."""
    if name == "Config" and "Type" in around and len(around) == 2:
        return _LOG_OPTIONS  # HostConfig.LogConfig
    if name == "Options" and ("Mountpoint" in around or ("Name" in around and len(around) == 2)):
        return _VOLUME_OPTIONS  # a volume; DriverConfig of a mount; swarm's LogDriver
    return None


def _option(name: str, value: Any, kept: frozenset[str]) -> Any:
    if not isinstance(value, str):
        return hidden(value)
    if name not in kept:
        return MASK if value else value
    if name != "o":
        return hidden_text(value)
    if len(value) > TEXT_LIMIT:
        return MASK
    # mount(8): commas between them.
    parts = []
    for part in value.split(","):
        option, _, given = part.partition("=")
        parts.append(f"{option}={MASK}" if given and is_secret_name(option) else hidden_text(part))
    return ",".join(parts)


def _built(text: str) -> str:
    """A line of an image's history: what ENV and ARG set, and what build arguments a RUN had, is hidden whole."""
    if found := _BUILT.match(text):
        return f"{found[0]}{MASK}" if found[3] else found[0]
    if found := _ARGS.match(text):
        # the arguments stand before the shell's command without any mark between them; a value may look like a shell
        # too, so the last one counts
        rest = text[found.end() :]
        shells = list(re.finditer(r"(?<= )/\S+ (?:-\S+ )*-\w*c ", rest[:TEXT_LIMIT]))
        return f"{found[0]}{MASK}{' ' + hidden_text(rest[shells[-1].start() :]) if shells else ''}"
    return hidden_text(text)


def _environment(value: Any) -> Any:
    """Every variable is hidden, whatever its name."""
    if isinstance(value, dict):
        return {name: MASK if isinstance(inner, str) else inner for name, inner in value.items()}
    if not isinstance(value, list):
        return MASK if isinstance(value, str) else value
    shown: list[Any] = []
    for item in value:
        if isinstance(item, dict):  # of a plugin: Name, Description, Value
            shown.append({k: MASK if isinstance(v, str) and k != "Name" else v for k, v in item.items()})
        elif isinstance(item, str):
            name, equals, _ = item.partition("=")
            shown.append(f"{name}={MASK}" if equals else name)
        else:
            shown.append(item)
    return shown


def secrets_in(values: Sequence[str]) -> list[str]:
    """What `hidden_words` takes out of these words."""
    found = []
    for value, shown in zip(values, hidden_words(values), strict=True):
        before, *between = shown.split(MASK)  # what is kept comes in its order, what is hidden lies between
        at = len(before)
        for number, kept in enumerate(between, start=1):
            is_last = number == len(between)
            end = len(value) - len(kept) if is_last else value.find(kept, at)
            found.append(value[at:end].strip("\"'"))
            at = end + len(kept)
    return [secret for secret in found if secret]


def eraser(values: Sequence[str], *, shortest: int = 4) -> Callable[[str], str]:
    """Removes exactly these values from a text, also as `repr` writes them. "1" or "yes" is not a secret."""
    known = {form for value in values if len(value) >= shortest for form in (value, repr(value)[1:-1])}
    longest_first = sorted(known, key=len, reverse=True)

    def erase(text: str) -> str:
        for value in longest_first:
            text = text.replace(value, MASK)
        return text

    return erase


def blotter(values: Sequence[str], *, shortest: int = 4) -> Callable[[str], str]:
    """As `eraser`, then whatever `hidden_text` finds."""
    erase = eraser(values, shortest=shortest)
    return lambda text: hidden_text(erase(text))
