"""skopeo, which reads images from registries and archives: it knows credentials, mirrors, proxies and policies.

It verifies each blob against its digest, and a manifest against the digest in the reference.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from typing import NamedTuple

from binfmtd.cli.store.images import MANIFEST_BYTES
from binfmtd.errors import FormatError, StoreError
from binfmtd.files.atomic import read_regular
from binfmtd.files.distribution import missing_program

IMAGE_BYTES = 16 << 30  # of an image on the disk, unpacked; a compressed layer may be a bomb
_LOOK_SECONDS = 0.2
_MESSAGE = re.compile(r'level=fatal msg="((?:[^"\\]|\\.)*)"')
_MESSAGE_BYTES = 1 << 16

_LOG_IN = "run `skopeo login {registry}`, or name a file with credentials with --authfile"
_CERTIFICATE = "put the CA's certificate into /etc/containers/certs.d/{registry}, or add --insecure"
_DAMAGED = "do not use it: the content is damaged, or another one than the digest means"

# What is in a message of skopeo's (1.18 with docker-registry 2.8.3), and the remedy.
_REMEDIES = (
    (r"unauthorized|authentication required|access to the resource is denied", _LOG_IN),
    (r"blob unknown", "the registry has lost a part of the image: push it again"),
    (r"manifest unknown|name unknown|name invalid|not found", "check the name, the tag and the digest"),
    (r"server gave HTTP response to HTTPS client", "if this registry is to be used without TLS, add --insecure"),
    (r"x509|certificate", _CERTIFICATE),
    (r"does not match|did not match|digest mismatch|[Ii]nvalid checksum", _DAMAGED),
    (r"no space left", "make room in the store"),
    (r"policy", "see containers-policy.json(5)"),
    (
        r"no such host|connection re|timeout|unexpected EOF|EOF$|unreachable|50[0-9]",
        "check the network and the registry, and run this again",
    ),
)


class Options(NamedTuple):
    """The options of the command line that are for skopeo."""

    authfile: str | None = None
    policy: str | None = None
    insecure: bool = False
    goarch: str | None = None  # of this machine, in the words of OCI


class Skopeo:
    """skopeo with these options; ``place`` is a directory for its temporary files and its messages."""

    def __init__(self, options: Options, place: str, step: Callable[[int], None] = lambda _: None) -> None:
        """``step`` is called now and then with the bytes that are there, while an image is copied.

        Raises StoreError if skopeo is missing.
        """
        program = shutil.which("skopeo")
        if program is None:
            raise StoreError(missing_program("skopeo", "skopeo"))
        self._place = place
        self._step = step
        self._options = options
        # $TMPDIR may be small; and what a killed command has left there would stay.
        self._command = [program, f"--tmpdir={place}", "--override-os=linux"]
        if options.goarch:
            self._command.append(f"--override-arch={options.goarch}")
        if options.policy:
            self._command.append(f"--policy={options.policy}")

    def raw_manifest(self, reference: str, source: str, registry: str = "") -> bytes:
        """Return the manifest or index of an image, as it is there or is served.  Raises StoreError, and OSError."""
        path = os.path.join(self._place, "raw")
        self._run(["inspect", "--raw", *self._access(""), reference], path, source, registry)
        try:
            return read_regular(path, MANIFEST_BYTES)
        except FormatError as error:
            raise StoreError(f"{source}: its manifest cannot be read: {error}") from None

    def copy(self, reference: str, directory: str, source: str, registry: str = "") -> None:
        """Copy an image into a directory that skopeo makes, with decompressed layers.  Raises StoreError, and OSError.

        A signature is for the original manifest, so it is left out, after the policy was applied to it.
        """
        command = ["copy", "--quiet", "--remove-signatures", "--dest-decompress", *self._access("src-")]
        self._run([*command, reference, f"dir:{directory}"], os.devnull, source, registry)

    def _access(self, kind: str) -> list[str]:
        options = [f"--authfile={self._options.authfile}"] if self._options.authfile else []
        return options + ([f"--{kind}tls-verify=false"] if self._options.insecure else [])

    def _run(self, arguments: Sequence[str], output: str, source: str, registry: str) -> None:
        from binfmtd.host.syscalls import signal_when_parent_dies

        errors = os.path.join(self._place, "messages")
        with open(output, "wb") as stdout, open(errors, "wb") as stderr:
            process = subprocess.Popen(
                [*self._command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                preexec_fn=lambda: signal_when_parent_dies(signal.SIGKILL),  # noqa: PLW1509  we have one thread
            )
            try:
                while not _ended(process):
                    size = size_below(self._place)
                    self._step(size)
                    if size > IMAGE_BYTES:
                        raise StoreError(f"{source}: it has more than {IMAGE_BYTES >> 30} GiB, which is the limit")
            finally:
                process.kill()
                process.wait()
        if process.returncode:
            with open(errors, "rb") as file:
                text = file.read(_MESSAGE_BYTES).decode("utf-8", "replace")
            raise StoreError(failure(text, process.returncode, source, registry))


def failure(text: str, status: int, source: str, registry: str) -> str:
    """Return the message of an error: what skopeo printed, without its own decoration, and the remedy."""
    found = _MESSAGE.findall(text)
    lines = [line for line in text.splitlines() if line.strip()]
    if found:
        message = re.sub(r"\\(.)", r"\1", found[-1].replace(r"\n", " "))
    else:
        message = lines[-1] if lines else f"it ended with status {status}"
    message = re.sub(r'^Error parsing image name "[^"]*": ', "", message)
    remedy = next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, message)), "see skopeo(1)")
    return f"{source}: skopeo: {message}: {remedy.format(registry=registry or 'REGISTRY')}"


def size_below(directory: str) -> int:
    """Return the bytes of the files in a directory and below; those that vanish meanwhile do not count."""
    size = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            try:
                size += os.lstat(os.path.join(parent, name)).st_size
            except OSError:
                continue
    return size


def _ended(process: "subprocess.Popen[bytes]") -> bool:
    try:
        process.wait(_LOOK_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True
