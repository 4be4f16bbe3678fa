"""From the merged files to a Config: architectures and ``[handlers]`` become specs.

* Of two declarations with equal priority the later wins.  Their order: architectures (those with images first), then
  included rules, then handlers in the order of the files.
* ``-NAME`` in ``architectures`` leaves one out, at any place in the array.
* A name has one declaration.  The later one counts, and a warning names both.  Where included rules replace what "all"
  declares, one warning names all of them.
* An entry that the kernel could not take is refused here, for every interpreter that could come to be used.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.names import find
from binfmtd.config.architecture_words import ALL, mistakes
from binfmtd.config.file_versions import shown
from binfmtd.config.include import NOTHING, Included, of_systemd
from binfmtd.config.merge import WAYS_TO_CHOOSE, Merged, Origin
from binfmtd.errors import ConfigError, FormatError
from binfmtd.files.distribution import install_module
from binfmtd.formats.register_line import encode_line
from binfmtd.model.config import PLACEHOLDER, Config, HandlerSpec, Metrics, Policy, SetBy
from binfmtd.model.emulator_version import IN_STORE, STORE, SYSTEM, interpreter_pattern
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import match_of
from binfmtd.model.stand_in import check_handler_name

if TYPE_CHECKING:
    from binfmtd.config.schema import ArchitectureTable, EmulatorsTable

DEFAULT_ARCHITECTURES = ("all",)
DEFAULT_PATHS = ("/usr/bin/qemu-{name}-static", "/usr/bin/qemu-{name}")
DEFAULT_ENTRY = "qemu-{name}"
OF_RULE = SetBy(  # a file of binfmt.d has no keys
    no_flag_f='write "{}" as its flags if the handler is meant for this root alone',
    force="declare it under [handlers] with force = true to register it anyway",
)
DEFAULT_FLAGS = Flags.P | Flags.O | Flags.F
MOST_WARNINGS = 50


def build(merged: Merged, sources: tuple[str, ...], included: Included = NOTHING) -> Config:
    """Make the Config.  Raises ConfigError for errors that the schema alone cannot detect."""
    warnings = [*merged.warnings, *included.warnings]
    given: dict[str, Any] = {key: value for key, value in merged.top.items() if key in Policy._fields}
    given |= {key: tuple(value) for key, value in given.items() if isinstance(value, list)}
    of_others = list(_included(included, warnings))
    of_architectures = list(_architectures(merged, sources, warnings))
    warnings += _one_for_several(of_architectures)
    specs = [*of_architectures, *of_others, *_handlers(merged)]
    return Config(
        tuple(_one_for_each_name(specs, {declared.source for declared in of_others}, warnings)),
        Policy()._replace(**given),
        _metrics(merged),
        sources,
        _limited(warnings),
        labels=merged.labels.get("file"),
    )


def _limited(warnings: Sequence[str]) -> tuple[str, ...]:
    """Return the first MOST_WARNINGS, and one more with the number of the rest: thousands would not be read."""
    more = len(warnings) - MOST_WARNINGS
    return (*warnings[:MOST_WARNINGS], *([f"and {more} more warnings, which are not shown"] if more > 0 else []))


def _metrics(merged: Merged) -> Metrics:
    wanted = Metrics(**merged.metrics)
    if wanted != Metrics() and find_spec("prometheus_client") is None:
        origin = next(merged.origins["metrics", key] for key in wanted._fields if getattr(wanted, key))
        raise origin.refuse(
            "requires the Python package prometheus_client, which is not installed: run "
            f"`{install_module('prometheus_client')}`"
        )
    return wanted


def _architectures(merged: Merged, sources: tuple[str, ...], warnings: list[str]) -> Iterator[HandlerSpec]:
    nowhere = Origin(sources[-1] if sources else "no config file", "architectures")
    origin = merged.origins.get(("architectures",), nowhere)
    words = merged.top.get("architectures", DEFAULT_ARCHITECTURES)
    if wrong := [f"{origin.file}: {key}: {reason}" for key, reason in mistakes(words)]:
        raise ConfigError.of(wrong)
    wanted: dict[str, str] = {}  # catalog name -> the word that asks for it
    left_out: dict[str, str] = {}
    for word in words:
        if word == ALL:
            wanted = dict.fromkeys(CATALOG, ALL) | wanted  # an architecture's own name takes precedence over "all"
            continue
        name = find(word.removeprefix("-")).name
        (left_out if word.startswith("-") else wanted)[name] = word
    for name, word in left_out.items():
        if wanted.get(name, ALL) != ALL:
            both = f"contains both {wanted[name]!r} and {word!r}: the architecture is excluded"
            warnings.append(f"{origin.file}: architectures: {both}")
    if left_out and not wanted:
        only = 'contains only exclusions, so it declares no architecture: to have all others, add "all" to it'
        warnings.append(f"{origin.file}: architectures: {only}")
    # Architectures with images come first, so they are the first to be served after a flush.  No two share a file.
    for name in sorted(CATALOG, key=lambda name: CATALOG[name].platform is None):
        if name in wanted and name not in left_out:
            given = ("architectures",) in merged.origins
            source = f'{origin.file} architectures "{wanted[name]}"' if given else f'"all" (default, {nowhere.file})'
            yield _architecture(merged, name, source, origin, from_all=wanted[name] == ALL)


def _one_for_several(specs: Sequence[HandlerSpec]) -> Iterator[str]:
    """Yield a warning for each path that several architectures name: QEMU's emulators are for one each."""
    users: dict[str, list[str]] = {}
    for spec in specs:
        for path in spec.interpreters:
            users.setdefault(path, []).append(str(spec.architecture))
    for path, architectures in users.items():
        if len(architectures) > 1:
            few = ", ".join(architectures[:3]) + (f" and {more} more" if (more := len(architectures) - 3) > 0 else "")
            yield (
                f"{path} is the interpreter of {few}: if it is for one of them alone, the programs of the others fail; "
                f"write {PLACEHOLDER} for the architecture in [emulators] paths"
            )


def _architecture(merged: Merged, name: str, source: str, asked: Origin, *, from_all: bool) -> HandlerSpec:
    table, emulators = merged.architectures.get(name, {}), merged.emulators

    def origin(*keys: tuple[str, ...]) -> Origin:
        return next((key_origin for key in keys if (key_origin := merged.origins.get(("emulators", *key)))), asked)

    patterns = _patterns(table, emulators)
    interpreters = tuple(dict.fromkeys(pattern.replace(PLACEHOLDER, name) for pattern in patterns))
    entry = table.get("entry", emulators.get("entry", DEFAULT_ENTRY))
    flags = table.get("flags", emulators.get("flags", DEFAULT_FLAGS))
    if "flags" not in table and Flags.C in flags:
        raise origin(("flags",)).refuse(
            "C lets set-uid programs of other architectures run as root: set it for one of them, in [emulators.NAME]"
        )
    chosen = [way for way in WAYS_TO_CHOOSE if table.get(way, SYSTEM) != SYSTEM]  # that leads to [emulators] paths
    spec = HandlerSpec(
        name=entry.replace(PLACEHOLDER, name),
        match=CATALOG[name].match,
        store=emulators.get("store", STORE),
        architecture=name,
        from_all=from_all,
        source=source,
        set_by=SetBy(f"[emulators.{name}] {chosen[0]}") if chosen else SetBy(),
        **{**_fields(table), "interpreters": interpreters, "flags": flags},
    )
    try:
        check_handler_name(spec.name)
    except FormatError as error:
        raise origin((name, "entry"), ("entry",)).refuse(error) from error
    ways = ((name, way) for way in WAYS_TO_CHOOSE)
    _check_lines(spec, origin(*ways, ("version",), ("paths",), ("store",), (name, "entry"), ("entry",)))
    return spec


def _patterns(table: "ArchitectureTable", emulators: "EmulatorsTable") -> Sequence[str]:
    """Return the paths of the emulators that an architecture may use, the first that serves first."""
    store = emulators.get("store", STORE)
    if "interpreter" in table:
        return [table["interpreter"]]
    version = table.get("version", emulators.get("version", SYSTEM))
    words = table.get("interpreters", [version if version == SYSTEM else IN_STORE + version])
    patterns: list[str] = []
    for word in words:
        if word == SYSTEM:
            patterns += emulators.get("paths", DEFAULT_PATHS)
        elif word.startswith(IN_STORE):
            patterns.append(interpreter_pattern(store, word.removeprefix(IN_STORE)))
        else:
            patterns.append(word)
    return patterns


def _fields(table: Mapping[str, object], *, but: str = "") -> dict[str, Any]:
    """Return the keys of a table that HandlerSpec has under the same name; it has the defaults of the others."""
    return {key: value for key, value in table.items() if key in HandlerSpec._fields and key != but}


def _included(included: Included, warnings: list[str]) -> Iterator[HandlerSpec]:
    for file, rule in included.rules:
        registration = rule.registration
        place = f"{shown(file)}:{rule.line}"
        try:
            encode_line(rule.name, registration)
        except FormatError as error:  # for example if it has a delimiter that is not among ours
            warnings.append(f"{place}: not included: {error}")
            continue
        yield HandlerSpec(
            rule.name,
            registration.match,
            (registration.interpreter,),
            registration.flags,
            included=of_systemd(file),
            source=place,
            set_by=OF_RULE,
        )


def _handlers(merged: Merged) -> Iterator[HandlerSpec]:
    for name, table in merged.handlers.items():
        origin = merged.origins["handlers", name]
        spec = HandlerSpec(
            name=name,
            match=CATALOG[table["match"]].match
            if "match" in table
            else match_of(table.get("magic"), table.get("mask"), table.get("offset"), table.get("extension")),
            interpreters=(table["interpreter"],),  # the schema refuses a table without one
            source=f"{origin.file} [{origin.key}]",
            **{"flags": Flags.NONE, **_fields(table, but="match")},
        )
        _check_lines(spec, origin)
        yield spec


def _check_lines(spec: HandlerSpec, origin: Origin) -> None:
    for path in spec.interpreters:
        try:
            encode_line(spec.name, Registration(spec.match, path, spec.flags))
        except FormatError as error:
            raise origin.refuse(error) from error


def _one_for_each_name(
    specs: Iterable[HandlerSpec], of_others: Collection[str], warnings: list[str]
) -> Iterable[HandlerSpec]:
    by_name: dict[str, HandlerSpec] = {}
    only_in_all: list[str] = []
    for later in specs:
        earlier = by_name.pop(later.name, None)
        if earlier and earlier.from_all and later.source in of_others:
            only_in_all.append(later.name)
        elif earlier:
            warnings.append(f"entry {later.name!r} is declared twice: {later.source} replaces {earlier.source}")
        by_name[later.name] = later
    if only_in_all:
        warnings.append(f'included files replace these entries that "all" declares: {", ".join(only_in_all)}')
    return by_name.values()
