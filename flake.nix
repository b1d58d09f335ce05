{
  description = "Runs Solo5 hvt unikernels in KVM guests";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.05";

  outputs =
    { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      perSystem = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
    in
    {
      packages = perSystem (pkgs: {
        default = pkgs.callPackage ./packaging/nix/package.nix { source = self; };
      });
      nixosModules.default = import ./packaging/nix/module.nix self;
    };
}
