"""``binfmtd emulators``: the store of emulators, from which the config names versions.

``pull`` alone uses the network.  The daemon does not: it reads the files that are in the store.
"""

import argparse
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from binfmtd.cli import options
from binfmtd.cli.output import print_json, print_table, warn
from binfmtd.cli.progress import Progress, in_words
from binfmtd.cli.store.directory import Store, checked_name
from binfmtd.cli.store.uses import Uses, find_uses
from binfmtd.config.load import load
from binfmtd.errors import ConfigError, StoreError, UsageError
from binfmtd.files.trust import Trust
from binfmtd.host.emulator_settings import in_words as settings_in_words
from binfmtd.model.emulator_version import STORE
from binfmtd.report.printable import printable
from binfmtd.report.sentence import counted

if TYPE_CHECKING:
    from binfmtd.cli.store.adding import Added, Wanted
    from binfmtd.cli.store.skopeo import Options
    from binfmtd.formats.store_manifest import Manifest

DONE = 0
FAILED = 1

SUBCOMMANDS = {
    "pull": "add the emulators of a container image, from a registry, through skopeo",
    "import": "add the emulators of a `docker save` or OCI archive, an OCI layout, a directory or a .deb",
    "configure": "make a version whose emulators have settings, such as QEMU_CPU, from another version",
    "export": "write a version to an OCI archive, for `import` on another host",
    "list": "list the versions, with their size and source, and what uses them",
    "verify": "compare the files of a version, or of all, with their manifests",
    "remove": "remove versions that neither the config nor an entry uses",
    "prune": "remove all versions that neither the config nor an entry uses",
}


def parser() -> argparse.ArgumentParser:
    """Return the parser for ``binfmtd emulators``."""
    command = options.parser("emulators", joins=False)
    of = options.add_subcommands(command, SUBCOMMANDS)
    of["pull"].add_argument(
        "image",
        metavar="IMAGE",
        help="the image, like docker.io/tonistiigi/binfmt:qemu-v9.2.2@sha256:...; a digest is verified",
    )
    of["import"].add_argument("source", metavar="FILE", help="the file or directory")
    of["import"].add_argument(
        "--image", metavar="NAME", help="which image of an archive that has several: its name in there"
    )
    of["configure"].add_argument("version", metavar="VERSION", help="the version whose emulators are copied")
    of["configure"].add_argument(
        "settings",
        metavar="NAME=VALUE",
        nargs="+",
        help="a variable that the emulators find in their environment, unless the caller has set it",
    )
    of["configure"].add_argument("--name", metavar="VERSION", required=True, help="the name of the new version")
    for name in ("pull", "import"):
        of[name].add_argument(
            "--name", metavar="VERSION", help="the name of the version (what all its emulators report, like 9.2.2)"
        )
    for name in ("pull", "import", "configure"):
        of[name].add_argument(
            "--arch", metavar="LIST", help="only these architectures, separated by commas (all that there are)"
        )
    for name in ("pull", "import"):
        of[name].add_argument(
            "--policy", metavar="FILE", help="skopeo's policy for signatures (see containers-policy.json(5))"
        )
    of["pull"].add_argument(
        "--authfile",
        metavar="FILE",
        help="the registry's credentials, as `skopeo login` writes them ($REGISTRY_AUTH_FILE, or skopeo's usual files)",
    )
    of["pull"].add_argument(
        "--insecure", action="store_true", help="use the registry without TLS, or without a valid certificate"
    )
    of["export"].add_argument("version", metavar="VERSION", help="the version")
    of["export"].add_argument("file", metavar="FILE", help="the archive to write; an existing file is replaced")
    of["verify"].add_argument("versions", metavar="VERSION", nargs="*", help="only these versions")
    of["remove"].add_argument("versions", metavar="VERSION", nargs="+", help="the versions")
    of["remove"].add_argument("--force", action="store_true", help="also if the config or an entry uses it")
    of["prune"].add_argument("--dry-run", action="store_true", help="only print what would be removed")
    for name in ("list", "remove", "prune"):
        options.add_mount(of[name])
    for each in of.values():
        options.add_config(each)
        each.add_argument(
            "--store",
            metavar="DIR",
            help=f"the directory of the store ($BINFMTD_STORE, or [emulators] store of the config, or {STORE})",
        )
        options.add_json(each)
    return command


def main(arguments: Sequence[str]) -> int:
    """Return 0, or 1 if ``verify`` has found a difference.  Raises StoreError and UsageError."""
    given = parser().parse_args(arguments)
    with Progress() as progress:
        return {
            "pull": _pull,
            "import": _import,
            "configure": _configure,
            "export": _export,
            "list": _list,
            "verify": _verify,
            "remove": _remove,
            "prune": _prune,
        }[given.subcommand](given, progress)


def store_directory(given: argparse.Namespace) -> str:
    """Return the directory that ``--store``, $BINFMTD_STORE or the config names.  Raises ConfigError."""
    named: str | None = given.store or os.environ.get("BINFMTD_STORE")
    if named:
        return named
    # Each architecture's handler has it, also of those that the config does not declare.
    specs = load(given.config, trust=Trust.of_this_process(), architectures=("all",)).specs
    return next((spec.store for spec in specs if spec.store), STORE)


def _pull(given: argparse.Namespace, progress: Progress) -> int:
    from binfmtd.cli.store.adding import Adder
    from binfmtd.cli.store.images import Reference

    reference = Reference.parse(given.image)
    if given.authfile is not None and not os.path.exists(given.authfile):
        raise UsageError(
            f"--authfile: {given.authfile} does not exist: correct the path, or write it with `skopeo login`"
        )
    adder = Adder(Store(store_directory(given)), progress)
    added = adder.pull(reference, _wanted(given), _for_skopeo(given, given.authfile, insecure=given.insecure))
    return _report(given, added, progress)


def _import(given: argparse.Namespace, progress: Progress) -> int:
    from functools import partial

    from binfmtd.cli.store.adding import Adder
    from binfmtd.cli.store.archives import look_at

    source = look_at(given.source, given.image, partial(progress.show, f"reading {given.source}"))
    adder = Adder(Store(store_directory(given)), progress)
    return _report(given, adder.take(source, _wanted(given), _for_skopeo(given)), progress)


def _configure(given: argparse.Namespace, progress: Progress) -> int:
    from binfmtd.cli.store.adding import Adder
    from binfmtd.cli.store.configuring import parse_settings

    settings = parse_settings(given.settings)
    adder = Adder(Store(store_directory(given)), progress)
    return _report(given, adder.configure(given.version, _wanted(given), settings), progress)


def _wanted(given: argparse.Namespace) -> "Wanted":
    from binfmtd.cli.store.adding import Wanted, selected

    architectures = None if given.arch is None else selected(given.arch.replace(",", " ").split())
    return Wanted(None if given.name is None else checked_name(given.name), architectures)


def _for_skopeo(given: argparse.Namespace, authfile: str | None = None, *, insecure: bool = False) -> "Options":
    from binfmtd.cli.store.skopeo import Options

    return Options(authfile, given.policy, insecure)


def _report(given: argparse.Namespace, added: "Added", progress: Progress) -> int:
    progress.clear()
    manifest = added.manifest
    for reason, paths in added.left_out.items():
        warn(f"left out {', '.join(paths)}: {reason}")
    if given.json:
        print_json({"name": added.name, "added": added.new, **_facts(manifest), "left_out": added.left_out})
        return DONE
    _print(
        f"{f'added {added.name}' if added.new else f'{added.name} is already in the store'}: "
        f"{counted(len(manifest.files), 'architecture')}, {in_words(manifest.size)}"
    )
    if manifest.digest is not None:
        _print(f"digest: {manifest.digest}")
    return DONE


def _export(given: argparse.Namespace, progress: Progress) -> int:
    from functools import partial

    from binfmtd.cli.store.choice import goarch_of
    from binfmtd.cli.store.exporting import export
    from binfmtd.host.facts import native_header

    store = Store(store_directory(given))
    store.check_exists(given.version)
    step = partial(progress.show, f"writing {given.file}")
    digest = export(store, given.version, given.file, goarch_of(native_header()), step)
    progress.clear()
    if given.json:
        print_json({"name": given.version, "file": os.path.abspath(given.file), "digest": digest})
    else:
        _print(f"wrote {given.file}: the image {digest}")
    return DONE


def _list(given: argparse.Namespace, _: Progress) -> int:
    store = Store(store_directory(given))
    names = store.names()
    uses = find_uses(given, store.path) if names else Uses({}, {})
    read = {name: _read(store, name) for name in names}
    versions = {name: read[name] for name in store.names() if name in read}  # other commands may have removed some
    _note_others(store)
    if uses.problem is not None:
        warn(f"which handlers use them is not known: {uses.problem}")
    if given.json:
        print_json([_document(name, found, uses) for name, found in versions.items()])
        return DONE
    rows = [_row(name, found, uses) for name, found in versions.items()]
    if rows:
        print_table([("VERSION", "ARCHITECTURES", "SIZE", "ADDED", "USED BY", "SOURCE"), *rows])
    else:
        _print(f"the store {store.path} is empty")
    return DONE


def _read(store: Store, name: str) -> "Manifest | str":
    try:
        return store.read(name)
    except StoreError as error:
        return str(error)


def _row(name: str, found: "Manifest | str", uses: Uses) -> tuple[str, ...]:
    count = len(uses.handlers.get(name, [])), len(uses.entries.get(name, []))
    used = ", ".join(counted(number, kind) for number, kind in zip(count, ("handler", "entry"), strict=True) if number)
    if isinstance(found, str):
        return (name, "-", "-", "-", used or "-", f"damaged: {found}")
    source = found.source if found.digest is None or found.digest in found.source else f"{found.source} {found.digest}"
    for settings in sorted({settings_in_words(file.settings) for file in found.files.values() if file.settings}):
        source += f", with {settings}"
    return (name, str(len(found.files)), in_words(found.size), found.created[:10], used or "-", source)


def _document(name: str, found: "Manifest | str", uses: Uses) -> dict[str, Any]:
    facts = {"damage": found} if isinstance(found, str) else {**_facts(found), "damage": None}
    return {
        "name": name,
        **facts,
        "handlers": uses.handlers.get(name, []),
        "entries": uses.entries.get(name, []),
    }


def _facts(manifest: "Manifest") -> dict[str, Any]:
    return {
        "source": manifest.source,
        "digest": manifest.digest,
        "platform_digest": manifest.platform_digest,
        "created": manifest.created,
        "bytes": manifest.size,
        "architectures": {name.removeprefix("qemu-"): file.version for name, file in manifest.files.items()},
        "settings": {
            name.removeprefix("qemu-"): dict(file.settings) for name, file in manifest.files.items() if file.settings
        },
    }


def _verify(given: argparse.Namespace, progress: Progress) -> int:
    current = ""
    store = Store(store_directory(given), lambda: progress.show(f"reading {current}"))
    names = given.versions or store.names()
    for name in names:
        store.check_exists(name)
    verified = {}
    for current in names:
        verified[current] = store.verify(current)
    there = given.versions or store.names()  # other commands may have removed some
    problems = {name: found for name, found in verified.items() if name in there}
    progress.clear()
    if given.json:
        print_json(
            {
                name: [{"file": each.file or None, "problem": each.problem} for each in found]
                for name, found in problems.items()
            }
        )
    else:
        for name, found in problems.items():
            for each in found:
                warn(f"{name}: {each.file + ' ' if each.file else ''}{each.problem}")
            if not found:
                _print(f"{name}: as it was added")
    return FAILED if any(problems.values()) else DONE


def _remove(given: argparse.Namespace, progress: Progress) -> int:
    store = Store(store_directory(given))
    for name in given.versions:
        store.check_exists(name)
    if not given.force:
        uses = _known_uses(given, store, "or add --force")
        for name in given.versions:
            if used := uses.of(name):
                raise StoreError(
                    f"version {name} is in use by {used}: name another version in the config and reload it, or add "
                    "--force"
                )
    return _remove_all(given, store, dict.fromkeys(given.versions), progress)


def _prune(given: argparse.Namespace, progress: Progress) -> int:
    store = Store(store_directory(given))
    names = store.names()
    uses = _known_uses(given, store, "then run this again") if names else Uses({}, {})
    unused = [name for name in names if not uses.of(name)]
    _note_others(store)
    if not given.dry_run:
        store.remove_leftovers()
    return _remove_all(given, store, unused, progress, dry=given.dry_run)


def _note_others(store: Store) -> None:
    if others := store.others():
        warn(f"left alone in {store.path}, since it is no version of emulators: {', '.join(others)}")


def _known_uses(given: argparse.Namespace, store: Store, otherwise: str) -> Uses:
    uses = find_uses(given, store.path)
    if uses.problem is not None:
        raise ConfigError(
            f"nothing was removed, since the config could name it, and cannot be read: {uses.problem}: correct that, "
            f"{otherwise}"
        )
    return uses


def _remove_all(
    given: argparse.Namespace, store: Store, names: Iterable[str], progress: Progress, *, dry: bool = False
) -> int:
    removed = []
    for name in names:
        progress.show(f"removing {name}")
        if dry or store.remove(name):  # otherwise another command has removed it
            removed.append(name)
    progress.clear()
    if given.json:
        print_json({"removed": removed, "dry_run": dry})
    else:
        for name in removed:
            _print(f"{'would remove' if dry else 'removed'} {name}")
        if not removed:
            _print("nothing to do")
    return DONE


def _print(text: str) -> None:
    print(printable(text))
