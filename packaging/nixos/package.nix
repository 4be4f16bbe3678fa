# The package, from a checkout or the archive of `make sdist`:  pkgs.callPackage ./package.nix { }
{ lib, python3Packages, coreutils, src ? ../.. }:

python3Packages.buildPythonApplication {
  pname = "binfmtd";
  version = lib.head (builtins.match ".*__version__ = \"([^\"]+)\".*" (builtins.readFile (src + "/binfmtd/__init__.py")));
  pyproject = true;
  inherit src;

  build-system = [ python3Packages.hatchling ];
  dependencies = with python3Packages; [ pydantic structlog pyinotify pyasyncore typing-extensions ];
  optional-dependencies.metrics = [ python3Packages.prometheus-client ];

  # The tests own private instances of binfmt_misc, which the build's sandbox does not have.
  doCheck = false;
  pythonImportsCheck = [ "binfmtd" ];

  # The units find the commands where the packages have them (NixOS has no /bin/sleep); the module uses these units.
  postInstall = ''
    for unit in systemd/binfmtd*; do
      install -D -m 644 "$unit" "$out/lib/systemd/system/''${unit#systemd/}"
      substituteInPlace "$out/lib/systemd/system/''${unit#systemd/}" \
        --replace-quiet /usr/bin/binfmtd "$out/bin/binfmtd" --replace-quiet /bin/sleep ${coreutils}/bin/sleep
    done
  '';

  meta = {
    description = "A daemon that keeps Linux's binfmt_misc in step with a declared set of handlers";
    license = lib.licenses.mit;
    platforms = lib.platforms.linux;
    mainProgram = "binfmtd";
  };
}
