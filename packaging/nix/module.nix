# Unikernels as services of NixOS, by the hardened unit tender@.service:
#
#     services.tender.unikernels.web = {
#       unikernel = ./web.hvt;
#       args = [ "--ipv4=10.100.0.2/24" ];
#       mem = "64M";
#       net.service.tap = "tap100";
#     };
#
# The tap is up and of group kvm, for example by systemd.network.netdevs.
self:
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.tender;
  toml = pkgs.formats.toml { };
  file = name: toml.generate "${name}.toml" cfg.unikernels.${name};
in
{
  options.services.tender = {
    package = lib.mkOption {
      type = lib.types.package;
      default = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
      defaultText = lib.literalMD "the package of tender's flake";
      description = "The tender.";
    };
    unikernels = lib.mkOption {
      type = lib.types.attrsOf toml.type;
      default = { };
      description = "The configuration file of each unikernel; docs/configuration.md lists the keys.";
    };
  };

  config = lib.mkIf (cfg.unikernels != { }) {
    environment.systemPackages = [ cfg.package ];
    systemd.packages = [ cfg.package ];
    environment.etc = lib.mapAttrs' (
      name: _: lib.nameValuePair "tender/${name}.toml" { source = file name; }
    ) cfg.unikernels;
    # A drop-in of the package's template; a changed file restarts its unikernel.
    systemd.services = lib.mapAttrs' (
      name: _:
      lib.nameValuePair "tender@${name}" {
        overrideStrategy = "asDropin";
        wantedBy = [ "multi-user.target" ];
        restartTriggers = [ (file name) ];
        # As packaging/systemd/process.conf, which has the reasons.
        serviceConfig = lib.mkIf ((cfg.unikernels.${name}.engine or "kvm") != "kvm") {
          MemoryDenyWriteExecute = false;
          SystemCallFilter = [
            "ptrace"
            "sched_setaffinity"
            "sched_setscheduler"
          ];
        };
      }
    ) cfg.unikernels;
  };
}
