"""Reading the config: whether it can be trusted, whether it holds still, and what it says.

* No config file means "all", unless one was named.  An empty one means "all" too, so a file that is being written must
  not be read half-way: all is looked at, read, and looked at again, until nothing changed in between.  (A reload waits
  until nobody has written for a while: see ``age`` in source.py.)
* Ownership comes before content: what somebody else can write is not even parsed.
* This module is cheap to import; pydantic comes with the first ``load``.
"""

from collections.abc import Sequence
from time import monotonic, sleep

from binfmtd.config.source import DEFAULT_PATH, Look, look_for, shown, unreadable
from binfmtd.errors import ConfigError, FormatError
from binfmtd.files.atomic import read_regular
from binfmtd.files.chain import Seen
from binfmtd.files.trust import Trust, untrusted
from binfmtd.model.config import Config

PATIENCE = 2.0  # seconds in all for files that keep changing
NAP = 0.01


def load(
    path: str | None,
    *,
    trust: Trust,
    default: str = DEFAULT_PATH,
    architectures: Sequence[str] | None = None,
) -> Config:
    """Read ``path``, or ``default`` if that is None, and what lies in conf.d beside it.

    ``architectures`` take the place of the files' own.  Raises ConfigError, whose message is one line with file, key
    and remedy.
    """
    contents = _read_when_still(path, default, trust)
    from binfmtd.config import build, merge, schema  # pydantic takes longer than all the rest

    parsed = [(file, schema.parse(_text(file, data), file)) for file, data in contents]
    merged = merge.merge(parsed)
    if architectures is not None:
        merged.top = merged.top.model_copy(update={"architectures": list(architectures)})
        merged.origins["architectures",] = merge.Origin("command line", "architectures")
    return build.build(merged, tuple(file for file, _ in parsed))


def _read_when_still(path: str | None, default: str, trust: Trust) -> list[tuple[str, bytes]]:
    """Read all files, again and again until nothing changed meanwhile."""
    give_up = monotonic() + PATIENCE
    look = look_for(path, default)
    while True:
        failure: ConfigError | None = None
        contents: list[tuple[str, bytes]] = []
        try:
            contents = _read(look, trust)
        except ConfigError as error:
            failure = error  # counts only if nothing moved
        again = look_for(path, default)
        if again == look:
            if failure is not None:
                raise failure
            return contents
        look = again
        if monotonic() >= give_up:
            raise ConfigError(
                f"{shown(look.files[0] if look.files else default)}: still changes after {PATIENCE:g} s: "
                "write it beside and rename it over, then load it again"
            )
        sleep(NAP)


def _read(look: Look, trust: Trust) -> list[tuple[str, bytes]]:
    seen: Seen = {}
    for path in (*look.directory, *look.files):
        if reason := untrusted(path, trust, seen):
            raise ConfigError(f"{shown(path)}: cannot be trusted: {reason}")
    contents: list[tuple[str, bytes]] = []
    for file in look.files:
        try:
            contents.append((shown(file), read_regular(file)))
        except OSError as error:
            raise unreadable(file, error) from error
        except FormatError as error:
            raise ConfigError(f"{shown(file)}: not read: {error}") from error
    return contents


def _text(file: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}: line {line} is not UTF-8 (byte {error.start}): save the file as UTF-8") from error
