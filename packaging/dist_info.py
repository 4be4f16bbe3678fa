"""Write the .dist-info directory of the package: ``python packaging/dist_info.py DIRECTORY VERSION``.

Without a VERSION remove each such directory of the package, also one that pip wrote.

``make install`` copies the package without pip.  With this directory importlib.metadata, pip and a distribution's tools
know that binfmtd is installed, its version and what it requires.  It has no RECORD, so pip refuses to remove the
package: ``make uninstall`` or the package manager does that.  An installation leaves one that pip wrote, so that pip
can upgrade.  ``make uninstall`` removes the package's files, pip's among them, and so removes pip's directory as well:
pip would list a package that is not there.

Format: https://packaging.python.org/en/latest/specifications/recording-installed-packages/
"""

import shutil
import sys
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
INSTALLER = "make install\n"
EXTRAS = ("metrics",)  # the others are for developers


def directories(directory: Path) -> list[Path]:
    """Return the .dist-info directories of the package, whichever installer wrote them."""
    return [*directory.glob("binfmtd-*.dist-info")]


def is_ours(made: Path) -> bool:
    """Return True for a directory that ``write`` has written.  Raises OSError."""
    installer = made / "INSTALLER"
    return installer.is_file() and installer.read_text(encoding="utf-8") == INSTALLER


def write(directory: Path, version: str) -> None:
    """Write DIRECTORY/binfmtd-VERSION.dist-info.  Raises OSError."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = [(extra, each) for extra in EXTRAS for each in project["optional-dependencies"][extra]]
    fields = [
        ("Metadata-Version", "2.4"),
        ("Name", project["name"]),
        ("Version", version),
        ("Summary", project["description"]),
        ("License-Expression", project["license"]),
        ("Requires-Python", project["requires-python"]),
        *(("Requires-Dist", each) for each in project["dependencies"]),
        *(("Provides-Extra", extra) for extra in EXTRAS),
        *(("Requires-Dist", f"{each}; extra == '{extra}'") for extra, each in optional),
    ]
    scripts = "".join(f"{name} = {function}\n" for name, function in project["scripts"].items())
    texts = {
        "METADATA": "".join(f"{name}: {value}\n" for name, value in fields),
        "INSTALLER": INSTALLER,
        "entry_points.txt": f"[console_scripts]\n{scripts}",
    }
    made = directory / f"{project['name']}-{version}.dist-info"
    made.mkdir()
    made.chmod(0o755)
    for name, text in texts.items():
        (made / name).write_text(text, encoding="utf-8")
        (made / name).chmod(0o644)


def main(directory: Path, version: str | None = None) -> None:
    """Write the directory of this version, or remove each directory of the package.  Raises OSError."""
    there = directories(directory)
    for made in there:
        if version is None or is_ours(made):
            shutil.rmtree(made)
    if version is not None and all(not made.exists() for made in there):
        write(directory, version)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
