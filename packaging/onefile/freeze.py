"""Make the one file, inside of the root tree that make.py has made: ``python3.11 -I freeze.py``.

Python's modules and those of binfmtd and its packages are compiled and put into one table.  The C compiler then links
the table, the launcher and Debian's static library of Python into one program.  Nothing is read from the network.
"""

import _imp
import marshal
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGES = HERE / "packages"  # what pip installed
APPLICATION = HERE / "application"  # with the directory binfmtd
OUT = HERE / "out"
STDLIB = Path(sysconfig.get_path("stdlib"))
CONFIG = Path(sysconfig.get_config_var("LIBPL"))
# Parts of the standard library that binfmtd has no use for, and that are large.
WITHOUT = frozenset(
    {
        "distutils",
        "doctest",
        "ensurepip",
        "idlelib",
        "lib2to3",
        "multiprocessing",
        "pydoc",
        "pydoc_data",
        "test",
        "tkinter",
        "turtle",
        "turtledemo",
        "unittest",
        "venv",
    }
)
# Of the packages: pydantic's older version, its plugins for other tools, and what only a build needs.
WITHOUT_OF_PACKAGES = frozenset({"pydantic.v1", "pydantic.mypy", "pydantic._hypothesis_plugin", "bin"})
# Compiled modules of the standard library.  Without _hashlib and _ssl there is no OpenSSL to keep up to date: hashlib
# then uses Python's own code, and no_tls.py takes the place of ssl.
COMPILED = (
    "_asyncio",
    "_bz2",
    "_contextvars",
    "_ctypes",
    "_decimal",
    "_json",
    "_lzma",
    "_queue",
    "_typing",
    "_zoneinfo",
    "mmap",
    "resource",
    "termios",
)
# glibc's libraries, and the one of gcc on which Debian's libc6 depends.
FROM_HOST = re.compile(r"(libc|libm|libpthread|libdl|librt|libutil|libgcc_s|ld-linux[-\w]*)\.so\.\d+$")
HEAD = '#include "tables.h"\n'
BLOB = """__asm__(
    ".section .rodata\\n"
    ".balign 64\\n"
    "{name}:\\n"
    ".incbin \\"{file}\\"\\n"
    ".previous\\n"
);
extern const unsigned char {name}[];
"""
ALIGNMENT = 64


class Blob:
    """Many pieces of data in one file, which the assembler includes; each begins at a multiple of ALIGNMENT."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, data: bytes) -> str:
        """Add data, and return the C expression of its address."""
        place = f"{self.name} + {self._size}"
        padded = data.ljust(-(-len(data) // ALIGNMENT) * ALIGNMENT, b"\0")
        self._pieces.append(padded)
        self._size += len(padded)
        return place

    def write(self) -> str:
        """Write the file, and return the C declaration."""
        file = OUT / f"{self.name}.bin"
        file.write_bytes(b"".join(self._pieces))
        return BLOB.format(name=self.name, file=file)


def modules(directory: Path, without: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Yield the name and the source file of each module below a directory."""
    for path in sorted(directory.rglob("*.py")):
        words = path.relative_to(directory).with_suffix("").parts
        if words[-1] == "__init__":
            words = words[:-1]
        names = [".".join(words[:length]) for length in range(1, len(words) + 1)]
        if not any(part in without or part.startswith("config-") for part in names):
            yield names[-1], path


def needed(library: Path) -> list[str]:
    """Return the libraries that a library requires (DT_NEEDED)."""
    listed = subprocess.run(["objdump", "-p", str(library)], check=True, capture_output=True, text=True).stdout
    return re.findall(r"^\s+NEEDED\s+(\S+)$", listed, re.MULTILINE)


def not_of_the_host(library: Path) -> list[Path]:
    """Return the libraries that have to come with this one, each after those that it requires itself."""
    found: list[Path] = []
    for name in needed(library):
        if FROM_HOST.match(name):
            continue
        (path,) = {path.resolve() for top in ("/lib", "/usr/lib") for path in Path(top).glob(f"*-linux-gnu/{name}")}
        for each in (*not_of_the_host(path), path):
            if each not in found:
                found.append(each)
    return found


def compiled_modules() -> Iterator[tuple[str, Path]]:
    """Yield the name and the library of each compiled module."""
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    for name in COMPILED:
        yield name, STDLIB / "lib-dynload" / f"{name}{suffix}"
    for path in sorted(PACKAGES.rglob("*.so")):
        yield ".".join((*path.relative_to(PACKAGES).parts[:-1], path.name.partition(".")[0])), path


def glibc(program: Path, libraries: Iterable[Path]) -> tuple[int, ...]:
    """Return the version of glibc that all of them require, by the versions of the symbols that they use."""
    versions: set[tuple[int, ...]] = {(0,)}
    for path in (program, *libraries):
        listed = subprocess.run(["objdump", "-p", str(path)], check=True, capture_output=True, text=True).stdout
        references = listed.partition("Version References:")[2]
        versions |= {tuple(map(int, found.split("."))) for found in re.findall(r"\bGLIBC_([\d.]+)", references)}
    return max(versions)


def main() -> None:
    """Make the program, and write the version of glibc that it requires into a file beside it."""
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    code, content = Blob("frozen_code"), Blob("all_content")
    frozen: dict[str, str] = {}
    contents: list[str] = []

    def freeze(name: str, source: bytes, file: str, *, is_package: bool = False) -> None:
        data = marshal.dumps(compile(source, file, "exec", dont_inherit=True))
        frozen[name] = f'{{"{name}", {code.add(data)}, {len(data)}, {int(is_package)}, NULL}},\n'

    def contain(name: str, data: bytes) -> None:
        contents.append(f'{{"{name}", {content.add(data)}, {len(data)}}},\n')

    freeze("ssl", (HERE / "no_tls.py").read_bytes(), "no_tls.py")
    places = ((STDLIB, WITHOUT), (PACKAGES, WITHOUT_OF_PACKAGES), (APPLICATION, ()))
    for directory, without in places:
        for name, path in modules(directory, without):
            # Those that Python has frozen itself start faster: they are objects of its program.
            if name not in frozen and not _imp.is_frozen(name):
                relative = str(path.relative_to(directory))
                freeze(name, path.read_bytes(), relative, is_package=path.name == "__init__.py")

    tables: dict[str, tuple[str, tuple[str, ...]]] = {}
    libraries: dict[str, Path] = {}
    for name, path in compiled_modules():
        others = not_of_the_host(path)
        for each in (*others, path):
            libraries[each.name] = each
        tables[name] = (path.name, tuple(each.name for each in others))
    for name, path in libraries.items():
        contain(name, path.read_bytes())
    for path in sorted((APPLICATION / "binfmtd/host/deep_programs").iterdir()):
        if path.is_file():
            contain(str(path.relative_to(APPLICATION)), path.read_bytes())
    freeze("_onefile_tables", f"COMPILED = {tables!r}\n".encode(), "_onefile_tables.py")
    freeze("__main__", (HERE / "start.py").read_bytes(), "start.py")

    generated = OUT / "tables.c"
    generated.write_text(
        f"{HEAD}{code.write()}{content.write()}"
        f"const struct _frozen frozen_modules[] = {{\n{''.join(frozen.values())}{{0}},\n}};\n"
        f"const struct content contents[] = {{\n{''.join(contents)}{{0}},\n}};\n"
    )
    program = OUT / "binfmtd"
    subprocess.run(
        [
            # At a fixed address, as Debian's own python3.11: its static library is compiled for that.
            *("gcc", "-no-pie", "-fno-pie", "-O2", "-Wall", "-Wextra", "-Wno-missing-field-initializers"),
            *(f"-I{sysconfig.get_config_var('INCLUDEPY')}", f"-I{HERE}", "-o", str(program)),
            *(str(HERE / "launcher.c"), str(generated)),
            # All of Python, since compiled modules use functions that nothing else uses; they find them in the program.
            *("-Wl,--whole-archive", str(CONFIG / "libpython3.11.a"), "-Wl,--no-whole-archive"),
            *("-Wl,--export-dynamic", "-Wl,--wrap=hypot", "-Wl,--wrap=arc4random_buf", "-Wl,-z,relro", "-s"),
            *("-Wl,-Bstatic", "-lexpat", "-lz", "-Wl,-Bdynamic", "-lm"),
        ],
        check=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    if unknown := [name for name in needed(program) if not FROM_HOST.match(name)]:
        sys.exit(f"freeze: the program requires {', '.join(unknown)}, which not every host has")
    (OUT / "glibc").write_text(".".join(map(str, glibc(program, libraries.values()))) + "\n")


if __name__ == "__main__":
    main()
