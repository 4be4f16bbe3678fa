"""The Nix files: their syntax, and with nixpkgs' lib (NIX_PATH) the module and the package, evaluated and not built.

The lib is the real one, with the module system. The packages and the options of NixOS are stubs of the names that our
files use.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.cli import CHECKOUT, Result, run
from support.required import unavailable

from binfmtd import __version__

pytestmark = pytest.mark.packages

NIXOS = CHECKOUT / "packaging/nixos"
FILES = sorted(NIXOS.glob("*.nix"))
# What binfmtd's module uses of NixOS, and what its package uses of nixpkgs.
EVALUATION = """
let
  lib = import <nixpkgs/lib>;
  anything = lib.mkOption { type = lib.types.anything; default = { }; };
  pkgs = {
    formats.toml = { }: {
      type = lib.types.attrsOf lib.types.anything;
      generate = name: value: { inherit name value; };
    };
    pkgsStatic.qemu-user = { type = "derivation"; outPath = "/nix/store/qemu"; };
    callPackage = path: overrides: import path { inherit lib python3Packages; coreutils = "/nix/store/coreutils"; };
  };
  python3Packages = lib.genAttrs PYTHON (name: name) // {
    buildPythonApplication = package: package // { type = "derivation"; outPath = "/nix/store/binfmtd"; };
  };
  system = lib.evalModules {
    specialArgs = { inherit pkgs; };
    modules = [
      MODULE
      { options = { boot = anything; environment = anything; systemd = anything; }; }
      { boot.binfmt.registrations = REGISTRATIONS; }
      { services.binfmtd = SETTINGS; }
    ];
  };
  inherit (system.config) environment systemd;
in {
  inherit (system.config.services.binfmtd) settings;
  package = builtins.removeAttrs system.config.services.binfmtd.package [ "outPath" "src" "type" ];
  packages = map (each: each.pname) (systemd.packages or [ ]);
  units = systemd.additionalUpstreamSystemUnits or [ ];
  wantedBy = systemd.services.binfmtd.wantedBy or [ ];
  file = environment.etc."binfmtd/binfmtd.toml".source or null;
}
"""
PYTHON = ("hatchling", "prometheus-client", "pyasyncore", "pydantic", "pyinotify", "structlog", "typing-extensions")


def nix(directory: Path, *arguments: str) -> Result:
    """Run nix-instantiate with a store of its own."""
    if shutil.which("nix-instantiate") is None:
        unavailable("not here: nix-instantiate; `make test-packages` installs nix-bin")
    own = {"HOME": str(directory), "NIX_REMOTE": f"local?root={directory}/nix"}
    return run(["nix-instantiate", *arguments], env=os.environ | own)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_syntax(path: Path, tmp_path: Path) -> None:
    """Nix parses the file."""
    done = nix(tmp_path, "--parse", str(path))
    assert done.status == 0, done.stderr


def test_a_syntax_error_is_found(tmp_path: Path) -> None:
    """Nix does not parse half of a file."""
    text = FILES[0].read_text()
    (tmp_path / "half.nix").write_text(text[: len(text) // 2])
    assert nix(tmp_path, "--parse", str(tmp_path / "half.nix")).status != 0


def evaluate(directory: Path, settings: str, registrations: str = "{ }") -> Result:
    """Evaluate a system with these settings of the service and of boot.binfmt; skip without nixpkgs."""
    if "nixpkgs=" not in os.environ.get("NIX_PATH", ""):
        pytest.skip("NIX_PATH names no nixpkgs, which no package of Debian has")
    text = EVALUATION.replace("MODULE", str(NIXOS / "module.nix")).replace("SETTINGS", settings)
    text = text.replace("REGISTRATIONS", registrations)
    names = " ".join(f'"{name}"' for name in PYTHON)
    (directory / "system.nix").write_text(text.replace("PYTHON", f"[ {names} ]"))
    return nix(directory, "--eval", "--strict", "--json", str(directory / "system.nix"))


def evaluated(directory: Path, settings: str, registrations: str = "{ }") -> Any:
    """Return what a system with these settings has."""
    done = evaluate(directory, settings, registrations)
    assert done.status == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def test_the_module(tmp_path: Path) -> None:
    """A system with the service has its unit, its package, and the config with the emulators of QEMU."""
    found = evaluated(tmp_path, '{ enable = true; settings.architectures = [ "arm64" ]; }')
    config = {"architectures": ["arm64"], "emulators": {"paths": ["/nix/store/qemu/bin/qemu-{name}"]}}
    assert found["settings"] == config
    assert found["file"] == {"name": "binfmtd.toml", "value": config}
    assert found["wantedBy"] == ["multi-user.target"]
    assert found["packages"] == ["binfmtd"]


def test_binfmt_misc_is_mounted(tmp_path: Path) -> None:
    """A system has the automount, which NixOS itself adds only where boot.binfmt registers something."""
    names = ["proc-sys-fs-binfmt_misc.automount", "proc-sys-fs-binfmt_misc.mount"]
    assert evaluated(tmp_path, "{ enable = true; }")["units"] == names
    assert evaluated(tmp_path, "{ enable = true; }", "{ wine = { }; }")["units"] == []


def test_the_package(tmp_path: Path) -> None:
    """It has this source's version, and requires packages of nixpkgs' names."""
    package = evaluated(tmp_path, "{ enable = true; }")["package"]
    assert package["version"] == __version__
    assert {*package["build-system"], *package["dependencies"], *package["optional-dependencies"]["metrics"]} == {
        *PYTHON
    }
    assert package["meta"]["mainProgram"] == "binfmtd"
    assert "/bin/sleep /nix/store/coreutils/bin/sleep" in package["postInstall"]


def test_the_module_with_other_emulators(tmp_path: Path) -> None:
    """With `emulators = null` the config names the emulators itself; otherwise its own paths win."""
    for emulators in ("emulators = null;", ""):
        found = evaluated(tmp_path, f'{{ enable = true; {emulators} settings.emulators.paths = [ "/q/{{name}}" ]; }}')
        assert found["settings"]["emulators"] == {"paths": ["/q/{name}"]}


def test_the_module_is_not_enabled(tmp_path: Path) -> None:
    """A system that only imports the module has neither the service nor its config."""
    found = evaluated(tmp_path, "{ }")
    assert (found["wantedBy"], found["file"], found["packages"]) == ([], None, [])


def test_an_unknown_option(tmp_path: Path) -> None:
    """An option that the module does not have is an error, which names it."""
    done = evaluate(tmp_path, "{ enable = true; setings = { }; }")
    assert done.status != 0
    assert "setings" in done.stderr
