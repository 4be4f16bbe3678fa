"""Adding a version: from a registry, an archive, a directory, a .deb or another version, through the same steps.

1. Everything happens in a hidden directory of the store (directory.py).
2. skopeo, dpkg-deb or a copy brings the files; layers.py unpacks those with the name of an emulator.
3. choice.py takes the static ones for this host's machine.
4. Each is executed once with ``--version``.  The name of the version follows from that, if none is given.
5. The version is renamed into the store.

A version with settings (configuring.py) begins with step 4: its files are made of those of another version.
"""

import os
import subprocess
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import IO, NamedTuple, cast

from binfmtd.cli.progress import Progress, in_words
from binfmtd.cli.store.archives import Kind, Source
from binfmtd.cli.store.choice import Choice, choose, goarch_of, name_of
from binfmtd.cli.store.configuring import check_runs, write_with_settings
from binfmtd.cli.store.directory import Prepared, Store, checked_name, sha256_of
from binfmtd.cli.store.images import MANIFEST_BYTES, Reference, layer_files, parse_json, platform_digest
from binfmtd.cli.store.layers import Unpacker
from binfmtd.cli.store.skopeo import Options, Skopeo
from binfmtd.errors import FormatError, StoreError, UsageError
from binfmtd.files.atomic import read_regular
from binfmtd.files.distribution import missing_program
from binfmtd.formats.store_manifest import PREFIX, FileFacts, Manifest
from binfmtd.host.emulator_settings import settings_in
from binfmtd.host.facts import native_header
from binfmtd.host.qemu_versions import versions
from binfmtd.host.security_modules import let_containers_execute

_MESSAGE_BYTES = 1 << 16


class Wanted(NamedTuple):
    """The name that the administrator gives to a version, and the architectures to take; None: all, or by default."""

    name: str | None = None
    architectures: tuple[str, ...] | None = None


class Added(NamedTuple):
    """A version that is in the store now; ``new`` is False if it was there before, with the same files."""

    name: str
    new: bool
    manifest: Manifest
    left_out: dict[str, list[str]]  # reason -> paths in the image


class Adder:
    """Adds versions to a store; ``progress`` shows how far it is."""

    def __init__(self, store: Store, progress: Progress) -> None:
        self._store = store
        self._progress = progress
        self._native = native_header()

    def pull(self, reference: Reference, wanted: Wanted, options: Options) -> Added:
        """Add the emulators of an image in a registry.  Raises StoreError and UsageError."""
        if (there := self._pulled_before(reference, wanted)) is not None:
            return there
        options = options._replace(goarch=goarch_of(self._native))
        source = str(reference)
        with self._store.preparing() as prepared:
            skopeo = Skopeo(options, prepared.directory("skopeo"), self._copied(source))
            raw = skopeo.raw_manifest(reference.for_skopeo, source, reference.registry)
            digest = reference.digest or f"sha256:{_sha256(raw)}"
            if reference.digest and reference.digest != f"sha256:{_sha256(raw)}":
                raise StoreError(f"{source}: the registry serves another manifest under this digest: do not use it")
            platform = platform_digest(parse_json(raw, source), options.goarch, source)
            exactly = reference.at(platform or digest)
            image = os.path.join(prepared.place, "skopeo", "image")
            skopeo.copy(exactly.for_skopeo, image, source, reference.registry)
            unpacker = self._unpack_image(prepared, image, source)
            return self._add(prepared, unpacker, wanted, source, digest, platform)

    def take(self, source: Source, wanted: Wanted, options: Options) -> Added:
        """Add the emulators of a file or directory of this host.  Raises StoreError, UsageError and OSError."""
        options = options._replace(goarch=goarch_of(self._native))
        with self._store.preparing() as prepared:
            digest = source.digest
            if source.kind is Kind.DIRECTORY:
                unpacker = self._unpacker(prepared, source.path)
                unpacker.add_directory(source.path)
            elif source.kind is Kind.DEB:
                unpacker = self._unpack_deb(prepared, source.path)
            else:
                skopeo = Skopeo(options, prepared.directory("skopeo"), self._copied(source.path))
                # skopeo 1.18 compares all but this manifest: index.json might claim the digest of another image.
                if digest and digest != f"sha256:{_sha256(skopeo.raw_manifest(source.reference, source.path))}":
                    raise StoreError(f"{source.path}: its manifest does not have its digest {digest}: do not use it")
                image = os.path.join(prepared.place, "skopeo", "image")
                skopeo.copy(source.reference, image, source.path)
                unpacker = self._unpack_image(prepared, image, source.path)
            if digest is None and source.kind is not Kind.DIRECTORY:
                digest = f"sha256:{sha256_of(source.path, self._step(f'reading {source.path}'))}"
            return self._add(prepared, unpacker, wanted, source.path, digest, None)

    def configure(self, base: str, wanted: Wanted, settings: Mapping[str, str]) -> Added:
        """Add a version with the emulators of another one, which find these variables set.

        Raises StoreError and UsageError, also if an emulator runs no program with them.
        """
        self._store.check_exists(base)
        there = self._store.read(base).names
        names = wanted.architectures or tuple(there)
        if missing := [name for name in names if name not in there]:
            raise UsageError(f"version {base} has no emulator of {', '.join(missing)}: leave that out of --arch")
        self._store.check_whole(base)
        placed: dict[str, str] = {}
        with self._store.preparing() as prepared:
            for name in names:
                self._progress.show(f"writing {PREFIX}{name} to the disk")
                without = os.path.join(self._store.directory(base), PREFIX + name)
                path = placed[name] = os.path.join(prepared.files, PREFIX + name)
                write_with_settings(without, path, settings)
                _finish(path)
                check_runs(name, path, without, settings, prepared.place)
            source = f"version {base}"
            step = self._step(f"checking {source}")
            files = self._facts(placed, {name: sha256_of(path, step) for name, path in placed.items()})
            return self._enter(prepared, wanted, Manifest(source, None, None, _now(), wanted.architectures, files))

    def _pulled_before(self, reference: Reference, wanted: Wanted) -> Added | None:
        """Return the version that an earlier pull of the same digest has added: then no registry is needed.

        Raises StoreError if it is damaged.
        """
        if reference.digest is None:
            return None
        self._store.check_trust()
        for name, manifest in self._store.readable():
            if (
                reference.digest in (manifest.digest, manifest.platform_digest)
                and manifest.architectures == wanted.architectures
                and wanted.name in (None, name)
            ):
                self._store.check_whole(name)
                return Added(name, False, manifest, {})  # noqa: FBT003  a named tuple
        return None

    def _unpack_image(self, prepared: Prepared, image: str, source: str) -> Unpacker:
        """Unpack the layers of an image in skopeo's ``dir:``, the lowest first."""
        try:
            manifest = parse_json(read_regular(os.path.join(image, "manifest.json"), MANIFEST_BYTES), source)
        except FormatError as error:
            raise StoreError(f"{source}: its manifest cannot be read: {error}") from None
        unpacker = self._unpacker(prepared, source)
        for number, name in enumerate(layer_files(manifest, source), 1):
            with open(os.path.join(image, name), "rb") as layer:
                unpacker.add_layer(layer, f"{source}, layer {number}")
        return unpacker

    def _unpack_deb(self, prepared: Prepared, path: str) -> Unpacker:
        unpacker = self._unpacker(prepared, path)
        messages = os.path.join(prepared.place, "messages")
        with open(messages, "wb") as stderr:
            try:
                process = subprocess.Popen(
                    ["dpkg-deb", "--fsys-tarfile", path],  # noqa: S607  its place differs
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                )
            except FileNotFoundError:
                raise StoreError(missing_program("dpkg-deb", "dpkg")) from None
        with process:
            output = cast("IO[bytes]", process.stdout)
            try:
                unpacker.add_layer(output, path)
                while output.read(1 << 16):  # what follows the end of the tar
                    pass
            except StoreError:
                if output.read(1):  # it would write more: the fault is in the content
                    process.kill()
                    raise
                if process.wait() == 0:
                    raise
        if process.returncode:
            with open(messages, "rb") as file:
                lines = file.read(_MESSAGE_BYTES).decode("utf-8", "replace").strip().splitlines()
            why = lines[-1] if lines else f"it ended with status {process.returncode}"
            raise StoreError(f"{path}: {why}: get the package again")
        return unpacker

    def _unpacker(self, prepared: Prepared, source: str) -> Unpacker:
        return Unpacker(prepared.directory("unpacked"), step=self._step(f"unpacking {source}"))

    def _add(
        self, prepared: Prepared, unpacker: Unpacker, wanted: Wanted, source: str, digest: str | None, of: str | None
    ) -> Added:
        choice = choose(unpacker.found(), self._native, wanted.architectures, unpacker.lost())
        self._check_choice(choice, unpacker, wanted, source)
        step = self._step(f"checking {source}")
        digests = {name: sha256_of(file.path, step) for name, file in sorted(choice.files.items())}
        if wanted.name is not None and (there := self._store.find(wanted.name)) is not None:
            self._store.check_same(wanted.name, digests)  # before anything is written to the disk
            return Added(wanted.name, False, there, choice.left_out)  # noqa: FBT003  a named tuple
        files = self._facts(self._place(prepared, choice), digests)
        return self._enter(prepared, wanted, Manifest(source, digest, of, _now(), wanted.architectures, files), choice)

    def _facts(self, placed: dict[str, str], digests: dict[str, str]) -> dict[str, FileFacts]:
        """Return what the manifest has of each file; paths and checksums are by architecture."""
        said = self._ask_versions(placed)
        return {
            PREFIX + name: FileFacts(digest, os.path.getsize(placed[name]), said[name], settings_in(placed[name]))
            for name, digest in sorted(digests.items())
        }

    def _enter(self, prepared: Prepared, wanted: Wanted, manifest: Manifest, choice: Choice | None = None) -> Added:
        """Rename the version into the store."""
        said = {name.removeprefix(PREFIX): file.version for name, file in manifest.files.items()}
        name = wanted.name or default_name(said, manifest.source)
        new = self._store.add(prepared, name, manifest)
        return Added(name, new, manifest if new else self._store.read(name), choice.left_out if choice else {})

    def _check_choice(self, choice: Choice, unpacker: Unpacker, wanted: Wanted, source: str) -> None:
        reasons = "; ".join(f"{', '.join(paths)}: {reason}" for reason, paths in choice.left_out.items())
        if not choice.files:
            among = f"{unpacker.members} files"
            why = f"among its {among} are only these emulators: {reasons}" if reasons else f"none of {among} is one"
            of = f" of {', '.join(wanted.architectures)}" if wanted.architectures else ""
            raise StoreError(
                f"{source}: it has no emulator{of} for this host ({name_of(self._native)}), which is a static program "
                f"with a name like qemu-aarch64: {why}: choose another source"
            )
        if missing := [name for name in wanted.architectures or () if name not in choice.files]:
            why = f" ({reasons})" if reasons else ""
            raise StoreError(f"{source}: it has no emulator of {', '.join(missing)}{why}: leave that out of --arch")

    def _place(self, prepared: Prepared, choice: Choice) -> dict[str, str]:
        """Move the files to where the version is prepared, durably, and return their paths by architecture."""
        placed: dict[str, str] = {}
        moved: dict[str, str] = {}
        for name, file in sorted(choice.files.items()):
            self._progress.show(f"writing {PREFIX}{name} to the disk")
            path = placed[name] = os.path.join(prepared.files, PREFIX + name)
            if file.path in moved:  # two names for one file
                os.link(moved[file.path], path)
                continue
            os.rename(file.path, path)
            moved[file.path] = path
            _finish(path)
        return placed

    def _ask_versions(self, placed: dict[str, str]) -> dict[str, str | None]:
        self._progress.show("asking the emulators for their versions")
        answers = versions(placed.values())
        return {
            name: ".".join(map(str, answer)) if isinstance(answer := answers[path], tuple) else None
            for name, path in placed.items()
        }

    def _copied(self, source: str) -> Callable[[int], None]:
        return lambda size: self._progress.show(f"copying {source}: {in_words(size)}")

    def _step(self, text: str) -> Callable[[], None]:
        return partial(self._progress.show, text)


def _finish(path: str) -> None:
    """Let everyone execute a file, and write it to the disk.  Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o755)
        let_containers_execute(descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def default_name(said: dict[str, str | None], source: str) -> str:
    """Return the version that all files report.  Raises UsageError if there is no such version."""
    reported = sorted({version for version in said.values() if version is not None})
    if len(reported) == 1 and None not in said.values():
        return checked_name(reported[0])
    if not reported:
        raise UsageError(f"{source}: its emulators report no version: give this one a name with --name")
    silent = [name for name, version in said.items() if version is None]
    also = f", and {', '.join(silent)} none" if silent else ""
    raise UsageError(
        f"{source}: its emulators report the versions {', '.join(reported)}{also}: give it a name with --name"
    )


def selected(architectures: Collection[str]) -> tuple[str, ...] | None:
    """Return the names in the catalog for names of any kind, sorted; None for ``all`` alone.  Raises UsageError."""
    from binfmtd.catalog.names import find

    if list(architectures) == ["all"]:
        return None
    if not architectures:
        raise UsageError("--arch is empty: name architectures, or leave --arch out for all")
    for word in architectures:
        if word in ("all", "none") or word.startswith("-"):
            raise UsageError(
                f"--arch: {word!r} cannot be used here: name each architecture, or leave --arch out for all"
            )
    try:
        return tuple(sorted({find(name).name for name in architectures}))
    except FormatError as error:
        raise UsageError(f"--arch: {error}") from None


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()
