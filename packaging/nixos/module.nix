# A NixOS module:  imports = [ .../packaging/nixos/module.nix ];  services.binfmtd.enable = true;
#
# boot.binfmt.emulatedSystems registers handlers once at boot, and allows Nix to build for those systems.  binfmtd keeps
# handlers: declare the same architectures here, and leave emulatedSystems for extra-platforms, or set these yourself.
{ config, lib, pkgs, ... }:

let
  cfg = config.services.binfmtd;
  toml = pkgs.formats.toml { };
in
{
  options.services.binfmtd = {
    enable = lib.mkEnableOption "binfmtd, which keeps the handlers of binfmt_misc registered";

    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = lib.literalExpression "pkgs.callPackage ./package.nix { }";
      description = "The package of binfmtd.";
    };

    emulators = lib.mkOption {
      type = lib.types.nullOr lib.types.package;
      default = pkgs.pkgsStatic.qemu-user or null;
      defaultText = lib.literalExpression "pkgs.pkgsStatic.qemu-user";
      description = "A package with static emulators, bin/qemu-NAME; null: the config names them.";
    };

    settings = lib.mkOption {
      type = toml.type;
      default = { };
      example = { architectures = [ "arm64" "riscv64" ]; };
      description = "The config, as in {manpage}`binfmtd.toml(5)`.";
    };
  };

  config = lib.mkIf cfg.enable {
    services.binfmtd.settings.emulators = lib.mkIf (cfg.emulators != null) {
      paths = lib.mkDefault [ "${cfg.emulators}/bin/qemu-{name}" ];
    };

    environment.systemPackages = [ cfg.package ];
    environment.etc."binfmtd/binfmtd.toml".source = toml.generate "binfmtd.toml" cfg.settings;

    # NixOS has these two units only where boot.binfmt registers something, and adding them twice fails its build.
    systemd.additionalUpstreamSystemUnits = lib.optionals (config.boot.binfmt.registrations == { }) [
      "proc-sys-fs-binfmt_misc.automount"
      "proc-sys-fs-binfmt_misc.mount"
    ];

    systemd.packages = [ cfg.package ];
    systemd.services.binfmtd = {
      wantedBy = [ "multi-user.target" ];
      # A new config is read by a reload: entries serve all the while.
      reloadTriggers = [ config.environment.etc."binfmtd/binfmtd.toml".source ];
    };
  };
}
