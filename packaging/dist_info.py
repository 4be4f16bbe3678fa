"""Write the .dist-info directory of the package: ``python packaging/dist_info.py DIRECTORY VERSION``.

Without a VERSION only remove what an earlier run wrote.

``make install`` copies the package without pip.  With this directory importlib.metadata, pip and a distribution's tools
know that binfmtd is installed, its version and what it requires.  It has no RECORD, so pip refuses to remove the
package: ``make uninstall`` or the package manager does that.  One that pip wrote stays, so that pip can upgrade.

Format: https://packaging.python.org/en/latest/specifications/recording-installed-packages/
"""

import shutil
import sys
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
INSTALLER = "make install\n"
EXTRAS = ("metrics",)  # the others are for developers


def remove(directory: Path) -> bool:
    """Remove what ``write`` wrote; return False if another installer's directory is there.  Raises OSError."""
    alone = True
    for made in directory.glob("binfmtd-*.dist-info"):
        installer = made / "INSTALLER"
        if installer.is_file() and installer.read_text(encoding="utf-8") == INSTALLER:
            shutil.rmtree(made)
        else:
            alone = False
    return alone


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


if __name__ == "__main__":
    if remove(Path(sys.argv[1])) and len(sys.argv) > 2:
        write(Path(sys.argv[1]), sys.argv[2])
