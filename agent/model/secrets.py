# SPDX-License-Identifier: GPL-2.0-or-later
"""Masks secrets: `hidden` in the engine's JSON, `hidden_text` in a text. Pure; takes time linear in the input.

Secrets are recognized by names (`DB_PASSWORD=`, `--token`, a label `...basicauth.users`), by form
(`scheme://user:pass@`, `Bearer X`, password hashes, private keys) and by place, whatever the value: environment
variables, build arguments, options of volumes and log drivers, commands of `docker exec`. A mask keeps the JSON type:
text stays text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

MASK = "***"
TEXT_LIMIT = 64 * 1024  # characters; a longer text is masked entirely instead of being searched

# names

# parts of names whose values are secrets
_WORDS = re.compile(
    r"pass(?:w(?:or)?d|phrase|code)|secret|tokens?(?![a-z])|credential|htpasswd|cookie|bearer"
    r"|(?:api|private|secret|access|encrypt(?:ion)?|master|root|app|auth|sign(?:ing)?|session|service|licen[cs]e"
    r"|preshared|shared|account|storage|admin|deploy|client|server|user|wg|web|jwt|hmac|aes)[_.-]?key"
    r"|(?:^|[^a-z])(?:pw|pwd|psk|pin|jwt|otp|totp|salt)(?![a-z])|[._-]key$|^key$"
    r"|authorization(?![a-z])|auth(?![a-z])|(?<!by)(?<!com)(?<!tres)pass(?![a-z])|(?:root|admin|user|db|mysql)pw$",
    re.IGNORECASE,
)
_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")  # between the words of `camelCase`
# names around such a part that tell about a secret without holding it: `password_file`
_NO_SECRETS = re.compile(
    r"(?:[_.-]|^)(?:no|skip|without|disable|enable|allow|use|require|with)[_.-]"
    r"|(?:[_.-]|(?<=[a-z])(?=[A-Z]))(?:file|path|dir|stdin|prompt|policy|length|ttl|expiry|expires?|timeout|type|name|method"
    r"|enabled|disabled|required|server|endpoint|issuer|realm|host|port|plugins?)$"
    r"|public[_.-]?key",
    re.IGNORECASE,
)


@lru_cache(4096)
def is_secret_name(name: str) -> bool:
    """Whether an environment variable, option, label or field with this name usually holds a secret."""
    spaced = _HUMPS.sub("_", name[-256:])
    return _WORDS.search(spaced) is not None and _NO_SECRETS.search(spaced) is None


# text

# a shell word, including its quoted, substituted and escaped parts
_QUOTED = r"""(?:"(?:[^"\\]|\\.)*+"|'[^']*+')"""
_BARE = r"""(?:\$\([^()]*+\)|`[^`]*+`|\\[^"]|[^\s;&|"'<>\\`])++"""
_VALUE = rf"""(?:{_QUOTED}|"[^"]*+|'[^']*+|\\"(?:[^"\\]|\\(?!"))*+(?:\\")?|{_BARE})"""
_REST = re.compile(rf"{_QUOTED}|(?![,)\]}}]){_BARE}")
_ARGUMENT = re.compile(r"([^\s;&|\"'=]++)=")
_QUOTES = re.compile(r"""\\.|["'`]""")  # an escaped character or a quote, to find where a value ends
# a name in front of `=` or `:`, as in shell, JSON and YAML
_NAME = re.compile(r"(?<![\w.-])([\w.-]++)(?:\\?[\"']?\s?=\s?|\\?[\"']\s*+:\s*+(?=[\"']|\\[\"']))")
_GIVEN = re.compile(_VALUE)
# whether a text has options at all: most have none
_OPTION = re.compile(r"(?<![\w-])-\w|--")
# a long option with its value as the next word
_FLAG = re.compile(r"(?<![\w.-])(--?[A-Za-z][\w.-]*+)\s++(?!--)")
_URL = re.compile(
    r"((?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]*+:)?//(?!\[)([^\s/@:\"'<>]*+)(?::(?!\d++(?:[/?#]|$))([^\s\"'<>]{0,256}))?@"
)
# starts at the beginning of a word, which keeps the time linear
_WORD = re.compile(r"(?<![^\s\"'])[^\s\"'@]*+@[^\s\"']*+")
_DIGEST = re.compile(r"@sha\d{1,3}:")  # an image's digest, which looks like the end of a login
# or a whole IPv6 address, whose colons do not count
_COLON = re.compile(r"\[[0-9A-Fa-f:.]*+(?:%[\w.-]*+)?\]|:")
# follows a colon that does not begin a password: in a path, an address, a port or a masked login
_NO_LOGIN = re.compile(r"[/:]|\d{1,5}/|\*{3}@")
# schemes of addresses in which `@` follows a person's name
_ADDRESSES = ("mailto", "sip", "sips", "xmpp", "acct")
_HEADER = re.compile(
    r"((?<![\w-])(?:(?:proxy-)?authorization|(?:set-)?cookie|private-token|x-[\w-]{0,64}(?:token|key|auth|secret)[\w-]{0,64})"
    r"\\?[\"']?\s*:\s*\\?[\"']?)((?:[^\r\n\"'\\]|(?<==)\"[^\r\n\"\\]*+\")++)",
    re.IGNORECASE,
)
# the two schemes of an Authorization header outside of a header
_BEARER = re.compile(r"\b(bearer)(\s++)([^\s,;\"'\\]++)", re.IGNORECASE)
_BASIC = re.compile(r"\b(basic\s++)([A-Za-z0-9+/_-]{6,}=*+)", re.IGNORECASE)
# how people and programs mention a secret in a sentence
_SAID = re.compile(
    r"((?:pass(?:word|wd|phrase)|secret|token|api[ _-]?key)\b\s?(?::|\bis\b)\s{0,8}+(?:\\?[\"'])?+)"
    r"([^\s,;\"']++)(?=(\s{0,8}+$)?)",
    re.IGNORECASE | re.MULTILINE,
)
# passwords in statements of databases
_SQL = re.compile(
    r"\b(identified\s{1,8}(?:with\s{1,8}\S{1,64}\s{1,8})?by|password(?:\s{1,8}for\s{1,8}\S{1,64})?)([\s=(]{1,8})('[^']*+'?|\"[^\"]*+\"?)",
    re.IGNORECASE,
)
# hashed passwords, by the mark of their algorithm: a weak one can be guessed
_HASH = re.compile(
    r"\$(?:1|2[abxy]?|5|6|7|y|gy|apr1|argon2\w*+|scrypt|pbkdf2[\w-]*+)\$[^\s\"',:]++|\{S?SHA\d*\}[\w+/=]++"
)
# tokens that are known by their form, wherever they stand
_TOKEN = re.compile(
    r"(?<![\w-])(?:eyJ[\w-]{8,}+\.[\w-]++\.[\w-]*+|gh[pousr]_\w{16,}+|github_pat_\w{16,}+|glpat-[\w-]{16,}+|dckr_pat_[\w-]{16,}+"
    r"|xox[abprs]-[\w-]{8,}+|AKIA[0-9A-Z]{16}|SWMTKN-[\w-]++|sk-[\w-]{20,}+)"
    # URLs that are secrets themselves
    r"|(?<=hooks\.slack\.com/services/)[\w/-]++|(?<=api\.telegram\.org/bot)[\w:-]++|(?<=/api/webhooks/)\d++/[\w-]++"
)
# private keys, also without an end: a log may cut them
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)")
# a word of a sentence: what follows "password is" in prose
_WORD_LIKE = re.compile(r"[A-Za-z][a-z]*[.,:;!?)]?")
# values of `-p` that are ports, paths or names: not every program means a password
_PLAIN_P = re.compile(r"[\d.:/,-]+(?:/?(?:tcp|udp|sctp))?|[/.=:].*|[a-z_-]+(?:=.*)?")
# its configuration has the password after a word without dashes
_REDIS = ("requirepass", "masterauth", "masterpass")
# option -> programs for which this short option takes a secret
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
# options of curl written together: `-fsSu`
_CLUSTER = re.compile(r"(?<![\w-])-[fsSkLvigGIjlnNOqRaB#]{1,12}([uUEb])([^\S\r\n]*+)")
_PROGRAMS = sorted({word for names in _SHORT.values() for name in names for word in name.split()})
# programs whose short options take secrets
_PROGRAM = re.compile(r"(?<![\w.-])(" + "|".join(_PROGRAMS) + r")[\w-]*+(?=[\s\"']|$)")
# options of many programs that take `user:password`, or only a user
_LOGINS = "-[uUa]|--(?:proxy-)?user|--(?:proxy-)?cert|--auth|--basic-auth|--userpass|--login"
_LOGIN = re.compile(rf"(?<![\w-])(?:{_LOGINS})(?:\s++|=)")
_USER = re.compile(r"[^%:,]*+[%:,]")  # the user in front of a password, and what separates them
_LOGIN_OPTION = re.compile(_LOGINS)
_ANY = "A:b1"  # a test value that no rule treats as harmless
_NO_PASSWORD = re.compile(r"\d*|[/\\].*|\*{3}.*", re.DOTALL)
_OF_SAMBA = re.compile(r"\b(user(?:name)?=[^\s,%=]{1,64}%)([^\s,\"']++)")  # mount -o user=name%password
# commands that are followed by a secret without an option or a recognizable form
_BEHIND = (
    r"(?<![\w.-])(?:htpasswd\s+-(?=\w{0,9}b)\w{0,9}n\w{0,9}\s+\S+|htpasswd\s+-(?!\w{0,9}n)\w{0,9}b\w{0,9}\s+\S+\s+\S+"
    r"|rabbitmqctl\s+(?:add_user|change_password|authenticate_user)\s+\S+|isql\s+\S+\s+\S+"
    r"|mc\s+(?:alias\s+set|config\s+host\s+add)\s+\S+\s+\S+\s+\S+|vault\s+login|wpa_passphrase\s+\S+"
    r"|cloudflared\s+service\s+install|ngrok\s+(?:config\s+add-)?authtoken|caddy\s+hash-password\s+(?:--plaintext|-p)"
    r"|smbclient\s+//\S+|openssl\s+passwd(?:\s+-\w+)?|mkpasswd)"
)
_BEHIND_THAT = re.compile(rf"{_BEHIND}\s+(?!-)")
_BEHIND_WORDS = re.compile(rf"{_BEHIND}$")
# `psk VALUE`, if the value does not look like the next word of a sentence
_NAMED = re.compile(
    r"(?<![./])(?:passw(?:or)?d|passphrase|psk|(?:private|preshared|access)[_-]key|auth[_-]?(?:token|key)|api[_-]key)"
    r"[^\S\r\n]+(?=[^\s:;,.]*\d)(?!-|[\d.:,/]+(?:\s|$)|[./(\[{<])",
    re.IGNORECASE,
)
# cheap test: only with one of these the patterns below can match
_HINT = re.compile(
    r"[pP]ass|PASS|psk|PSK|[kK]ey|KEY|[aA]uth|AUTH|login|[_ ]user|isql|smbclient|mc |install|echo|printf"
)
# a secret that is written into a program's input
_PIPED = re.compile(
    r"\b((?:echo|printf)\s{1,8})([^|;&\r\n]{1,256})(?=\|[^|;&]{0,256}(?:--password-stdin|--password-file=-|chpasswd|passwd|kinit|cryptsetup|sudo\s+-S))"
)


def hidden_text(text: str) -> str:
    """Any text with its secrets masked: a command, a message, a line of output, a value."""
    if len(text) > TEXT_LIMIT:
        return MASK
    # The order matters: a login in a URL is masked before `name=value` could split the URL, and masked text is left
    # alone. Cheap tests come before the patterns, because most texts contain no secret.
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
    """`name=value` with secrets masked."""
    return f"{name}={hidden_value(name, value)}"


def hidden_value(name: str, value: str) -> str:
    """The value of an option, label or field with this name, with secrets masked."""
    return MASK if value and is_secret_name(name) else hidden_text(value)


def hidden_words(words: Sequence[str]) -> list[str]:
    """A command as a list of words: for example, the word after `--password` is a secret."""
    made: list[str] = []
    programs, before = "", ""
    for number, word in enumerate(words):
        # `--db-password VALUE` is recognized by its name; redis passwords follow words without dashes
        is_option = before.startswith("-") and "=" not in before
        is_given = is_secret_name(before.lstrip("-")) if is_option else before.lower() in _REDIS
        option = _CLUSTER.fullmatch(before) or _SHORT_ARGS.fullmatch(before)
        is_script = before[:1] == "-" and before[-1] == "c" and words[number - 2].endswith(("sh", "su"))
        name = _ARGUMENT.match(word) if len(words) > 1 and not is_script else None
        if is_given and not word.startswith("--"):
            shown = MASK
        elif name and is_secret_name(name[1].lstrip("-")):
            shown = f"{name[0]}{MASK}"  # a single argument: mask all of it
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
    if password is None:  # a name alone is a user, but a token alone is a secret: https://TOKEN@host
        is_name = not scheme or scheme.lower() in ("ssh:", "git+ssh:", "sftp:", "git:", "rsync:")
        return f"{scheme}//{user if is_name or not user else MASK}@"
    return f"{scheme}//{user}:{MASK}@"


def _without_bare_login(found: re.Match[str]) -> str:
    """`user:password@host` without a scheme: masks from the first colon that can precede a password to the last `@`.

    Not matched: a name with a tag and a digest, a path, a port, an IPv6 address, a mail address after its scheme.
    """
    word = found[0]
    digest = _DIGEST.search(word)
    # the last `@` before a digest: passwords may contain one, host names do not
    end = word.rfind("@", 0, digest.start() if digest else len(word))
    for colon in _COLON.finditer(word, 0, max(end, 0)):
        at = colon.end()
        is_mail = word[max(at - 8, 0) : at - 1].rpartition("<")[2].lower() in _ADDRESSES
        # skip a colon followed by something like a port or a tag
        if at < end and colon[0] == ":" and not is_mail and not _NO_LOGIN.match(word, at):
            return f"{word[:at]}{MASK}{word[end:]}"
    return word


def _is_behind(words: Sequence[str], number: int) -> bool:
    """Whether the words before this one say that it is a secret."""
    before = " ".join(words[max(number - 6, 0) : number])[-512:]
    last = before.rpartition(" ")[2]
    named = _NAMED.search(f"{last} {words[number]}")
    is_named = named is not None and named.end() == len(last) + 1
    return not words[number].startswith("-") and (is_named or _BEHIND_WORDS.search(before) is not None)


def _masked(text: str, heads: re.Pattern[str], shown: Callable[[re.Match[str], str], str]) -> str:
    """Replaces the shell word after each match of `heads` with the result of `shown`."""
    made, at, done = [], 0, 0
    read, quote = 0, ""  # the quote that is open at the present position
    while (found := heads.search(text, at)) is not None:
        at = found.end()
        # the value may contain other heads, so it is skipped only if it is masked
        if shown(found, _ANY) == _ANY or (value := _GIVEN.match(text, at)) is None:
            continue
        end = value.end()
        if not found[0].rstrip().endswith(":"):
            for mark in _QUOTES.finditer(text, read, at):
                if len(mark[0]) == 1 and (not quote or quote == mark[0]):
                    quote = "" if quote else mark[0]
            read = at
            # the name is inside a command substitution, or in code of a message
            if quote == "`" and quote in value[0]:
                end = text.index(quote, at)
            while text[end : end + 1] != (quote or "\0") and (more := _REST.match(text, end)) is not None:
                end = more.end()
        given = text[at:end]
        if (new := shown(found, given)) != given:
            made += [text[done:at], new]
            at = done = end
    return "".join([*made, text[done:]])


def _without_values(text: str) -> str:
    """Masks `NAME=value` and `"name": "value"`. A value that is kept may contain others: `o=username=a,password=b`."""

    def shown(found: re.Match[str], value: str) -> str:
        is_masked = value.startswith(MASK) and not value.removeprefix(MASK).strip(")],.}")
        # `[TOKEN=***]` keeps its bracket
        return MASK if is_secret_name(found[1].lstrip("-")) and not is_masked else value

    return _masked(text, _NAME, shown)


def _without_said(found: re.Match[str]) -> str:
    """Masks `password: hunter2`, but not `password: expected text`: in prose, more text follows the word."""
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
        # without a known program: mysql accepts `-pSECRET`, but `-p8080:80` is a port
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
    if option in ("u", "U", "E"):  # user:password, Samba's user%password, lftp's user,password
        found = _USER.match(value.strip("\"'"))
        return f"{found[0]}{MASK}" if found else value
    return MASK


def _login(programs: str, value: str) -> str:
    """Masks `user:password`, but not user and group as numbers or for `docker run`."""
    user, sign, password = value.strip("\"'").partition(":")
    is_group = _NO_PASSWORD.fullmatch(password) or password == user or "docker" in programs
    return f"{user}:{MASK}" if sign and not is_group else value


# the engine's JSON

_ENVIRONMENT = frozenset({"env", "environment"})  # fields that hold variables by name
_LOG_OPTIONS = frozenset(
    {
        "max-size", "max-file", "max-buffer-size", "mode", "compress", "labels", "labels-regex", "env", "env-regex", "tag",
        "syslog-facility", "syslog-format", "cache-disabled", "cache-max-size", "cache-max-file", "cache-compress",
    }
)  # fmt: skip
_VOLUME_OPTIONS = frozenset({"type", "o", "device", "size", "uid", "gid"})
# an event of an exec has its command in its name
_EXEC = re.compile(r"(exec_(?:create|start|detach)): ?[\s\S]*")
# a layer's history shows the variables of the image, and the arguments of its build
_BUILT = re.compile(r"(?:/bin/sh -c #\(nop\) +)?(ENV|ARG) +([A-Za-z_]\w*)(=)?")
_ARGS = re.compile(r"(RUN )?\|(\d{1,4}) ")


def hidden(value: Any) -> Any:
    """A copy of decoded JSON for readers, with secrets masked. Names, numbers and structure stay.

    Raises RecursionError if it is nested too deeply.
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
        # an event of an exec contains the whole command line after the colon
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
    """The options that are not secret if these are a driver's options; None if they are not."""
    if name == "Config" and "Type" in around and len(around) == 2:
        return _LOG_OPTIONS  # HostConfig.LogConfig
    if name == "Options" and ("Mountpoint" in around or ("Name" in around and len(around) == 2)):
        return _VOLUME_OPTIONS  # a volume, DriverConfig of a mount, or swarm's LogDriver
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
    # mount(8) separates options with commas
    parts = []
    for part in value.split(","):
        option, _, given = part.partition("=")
        parts.append(f"{option}={MASK}" if given and is_secret_name(option) else hidden_text(part))
    return ",".join(parts)


def _built(text: str) -> str:
    """A line of an image's history. Values of ENV and ARG, and build arguments of a RUN, are masked entirely."""
    if found := _BUILT.match(text):
        return f"{found[0]}{MASK}" if found[3] else found[0]
    if found := _ARGS.match(text):
        # the arguments precede the shell's command without a separator; a value may look like a shell too, so the
        # last match counts
        rest = text[found.end() :]
        shells = list(re.finditer(r"(?<= )/\S+ (?:-\S+ )*-\w*c ", rest[:TEXT_LIMIT]))
        return f"{found[0]}{MASK}{' ' + hidden_text(rest[shells[-1].start() :]) if shells else ''}"
    return hidden_text(text)


def _environment(value: Any) -> Any:
    """Masks every variable, whatever its name."""
    if isinstance(value, dict):
        return {name: MASK if isinstance(inner, str) else inner for name, inner in value.items()}
    if not isinstance(value, list):
        return MASK if isinstance(value, str) else value
    shown: list[Any] = []
    for item in value:
        if isinstance(item, dict):  # a plugin's: Name, Description, Value
            shown.append({k: MASK if isinstance(v, str) and k != "Name" else v for k, v in item.items()})
        elif isinstance(item, str):
            name, equals, _ = item.partition("=")
            shown.append(f"{name}={MASK}" if equals else name)
        else:
            shown.append(item)
    return shown


def secrets_in(values: Sequence[str]) -> list[str]:
    """The secrets that `hidden_words` masks in these words."""
    found = []
    for value, shown in zip(values, hidden_words(values), strict=True):
        before, *between = shown.split(MASK)  # the kept parts are in order, and the secrets are between them
        at = len(before)
        for number, kept in enumerate(between, start=1):
            is_last = number == len(between)
            end = len(value) - len(kept) if is_last else value.find(kept, at)
            found.append(value[at:end].strip("\"'"))
            at = end + len(kept)
    return [secret for secret in found if secret]


def eraser(values: Sequence[str], *, shortest: int = 4) -> Callable[[str], str]:
    """Returns a function that masks exactly these values in a text, also in the form of `repr`. Values like "1" or "yes"
    are too short to count."""
    known = {form for value in values if len(value) >= shortest for form in (value, repr(value)[1:-1])}
    # longest first: a value may be part of another
    longest_first = sorted(known, key=len, reverse=True)

    def erase(text: str) -> str:
        for value in longest_first:
            text = text.replace(value, MASK)
        return text

    return erase


def redactor(values: Sequence[str], *, shortest: int = 4) -> Callable[[str], str]:
    """As `eraser`, and additionally masks whatever `hidden_text` finds."""
    erase = eraser(values, shortest=shortest)
    return lambda text: hidden_text(erase(text))
