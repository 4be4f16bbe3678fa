"""List the packages in an image as CycloneDX JSON: ``docker export CONTAINER | python sbom.py NAME VERSION``.

debsbom lists Debian's packages, and cyclonedx-py Python's: both from files, as the image may be of another machine.
This joins the two lists, and adds what they lack:

- Packages that the image has files of without their installation, such as qemu-user.  They are in status.d.
- Licences of Debian's packages.  debsbom gives them to source packages, and only as SPDX expressions.  A package
  without one gets the names in its copyright file, such as "GPL-2".

The list depends on nothing but the image, so two lists of an image are equal.  Its time is $SOURCE_DATE_EPOCH, if that
is set.
"""

import datetime as dt
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

STATUS = re.compile(r"var/lib/dpkg/status(\.d/[^/]+)?")
COPYRIGHT = re.compile(r"usr/share/doc/[^/]+(/copyright)?")
METADATA = re.compile(r"opt/binfmtd/lib/[^/]+/site-packages/[^/]+\.dist-info/.+")
OWN = "binfmtd"
# Debian's names of licences: in files of its format for copyrights, or by the texts that others refer to.
NAMES = re.compile(r"^License:[ \t]*(\S.*)$", re.MULTILINE)
COMMON = re.compile(r"/usr/share/common-licenses/([\w.+-]*[\w+])")

Document = dict[str, Any]


class Package(NamedTuple):
    """A package, as dpkg's status describes it."""

    source: str
    machine: str


def unpack(image: BinaryIO, root: Path) -> None:
    """Write the files that name packages below ``root``, from a tar of the image's root directory."""
    with tarfile.open(fileobj=image, mode="r|*") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if (member.isreg() or member.issym()) and any(
                pattern.fullmatch(name) for pattern in (STATUS, COPYRIGHT, METADATA)
            ):
                archive.extract(member, root, filter="data")


def status(root: Path) -> str:
    """Return dpkg's list, with the packages of status.d."""
    directory = root / "var/lib/dpkg"
    paths = [directory / "status", *sorted(directory.glob("status.d/*"))]
    return "\n\n".join(path.read_text(encoding="utf-8").strip() for path in paths) + "\n"


def packages(listed: str) -> dict[str, Package]:
    """Return the packages of a list, by their names."""
    found = {}
    for stanza in listed.split("\n\n"):
        fields: dict[str, str] = dict(re.findall(r"^([\w-]+): (.*)$", stanza, re.MULTILINE))
        name = fields["Package"]
        found[name] = Package(fields.get("Source", name).partition(" ")[0], fields["Architecture"])
    return found


def debian_list(root: Path, listed: str) -> Document:
    """Return debsbom's list."""
    options = ["--sbom-type=cdx", "--from-pkglist", "--with-licenses", f"--root={root}", "--distro-name=image"]
    options += [f"--distro-arch={packages(listed)['dpkg'].machine}", "--out=-"]
    return document("debsbom", "generate", *options, stdin=listed)


def python_list(root: Path, schema: str) -> Document:
    """Return cyclonedx-py's list, by this version of CycloneDX's schema."""
    (directory,) = root.glob("opt/binfmtd/lib/*/site-packages")
    # It asks an interpreter where its packages are.
    interpreter = root / "interpreter"
    interpreter.write_text(f"#!/bin/sh\necho '{json.dumps([str(directory)])}'\n", encoding="utf-8")
    interpreter.chmod(0o755)
    options = ["--output-reproducible", f"--spec-version={schema}"]
    return document("cyclonedx-py", "environment", *options, str(interpreter))


def document(*command: str, stdin: str | None = None) -> Document:
    """Return the JSON that a command writes."""
    try:
        done = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, text=True, check=True)
    except FileNotFoundError:
        raise SystemExit(f"sbom: {command[0]} is not on PATH: run pip install '.[sbom]'") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"sbom: {command[0]} failed with exit status {error.returncode}; see above") from None
    found: Document = json.loads(done.stdout)
    return found


def add_licences(debian: Document, root: Path, known: dict[str, Package]) -> None:
    """Give each binary package the licences of its source package, or else the names in its copyright file."""
    expressions = {}
    for component in debian["components"]:
        if is_source(component) and component.get("licenses"):
            expressions[component["name"]] = component["licenses"]
    for component in debian["components"]:
        if not is_source(component) and not component.get("licenses"):
            name = component["name"]
            component["licenses"] = expressions.get(known[name].source) or [
                {"license": {"name": licence}} for licence in licences(root, name)
            ]


def is_source(component: Document) -> bool:
    """Return True for a source package."""
    return "arch=source" in component["purl"]


def licences(root: Path, package: str) -> list[str]:
    """Return the names of licences in a package's copyright file."""
    path = root / "usr/share/doc" / package / "copyright"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    found = NAMES.findall(text) if text.startswith("Format:") else []
    return sorted({name.strip() for name in found or COMMON.findall(text)}) or [f"see {path.relative_to(root)}"]


def without_paths(components: list[Document]) -> Iterator[Document]:
    """Yield the components without references to files of the build."""
    for component in components:
        references = component.pop("externalReferences", [])
        if references := [each for each in references if not each["url"].startswith("file:")]:
            component["externalReferences"] = references
        yield component


def joined(debian: Document, python: Document, name: str, version: str) -> Document:
    """Return one list of both, of the image with this name."""
    image = debian["metadata"]["component"] | {"type": "container", "name": name, "version": version}
    dependencies = {each["ref"]: each for each in (*debian["dependencies"], *python["dependencies"])}
    (own,) = (each["bom-ref"] for each in python["components"] if each["name"] == OWN)
    dependencies[image["bom-ref"]].setdefault("dependsOn", []).append(own)
    tools = [each for part in (debian, python) for each in part["metadata"]["tools"]["components"]]
    components = [*debian["components"], *without_paths(python["components"])]
    found = debian | {
        "metadata": {"component": image, "tools": {"components": tools}},
        "components": sorted(components, key=lambda each: str(each["bom-ref"])),
        "dependencies": [dependencies[ref] for ref in sorted(dependencies)],
    }
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        time = dt.datetime.fromtimestamp(int(epoch), dt.UTC)
        found["metadata"]["timestamp"] = time.isoformat()
    del found["serialNumber"]
    content = json.dumps(found, sort_keys=True)
    return found | {"serialNumber": uuid.uuid5(uuid.NAMESPACE_OID, content).urn}


def main() -> None:
    """Read the tar from stdin, and write the list to stdout."""
    if len(sys.argv) != 3:
        raise SystemExit("usage: docker export CONTAINER | sbom.py NAME VERSION >LIST.cdx.json")
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        unpack(sys.stdin.buffer, root)
        listed = status(root)
        debian = debian_list(root, listed)
        add_licences(debian, root, packages(listed))
        found = joined(debian, python_list(root, debian["specVersion"]), *sys.argv[1:])
    json.dump(found, sys.stdout, indent=2, sort_keys=True)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
