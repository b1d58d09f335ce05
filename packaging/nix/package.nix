# tender with its manual, completions and unit; also as solo5-hvt and solo5-elftool.
{
  lib,
  rustPlatform,
  installShellFiles,
  source,
}:
rustPlatform.buildRustPackage {
  pname = "tender";
  version = (lib.importTOML "${source}/Cargo.toml").workspace.package.version;
  src = source;
  cargoLock.lockFile = "${source}/Cargo.lock";
  cargoBuildFlags = [ "--package=tender-vmm" "--package=manual" ];
  # The tests need /dev/kvm and root.
  doCheck = false;
  nativeBuildInputs = [ installShellFiles ];
  postInstall = ''
    $out/bin/manual pages 1970-01-01
    rm $out/bin/manual
    installManPage pages/*.[1-9]
    installShellCompletion --bash --name tender pages/tender.bash
    installShellCompletion --zsh --name _tender pages/tender.zsh
    installShellCompletion --fish pages/*.fish
    ln -s tender $out/bin/solo5-hvt
    ln -s tender $out/bin/solo5-elftool
    install -D --mode=644 packaging/systemd/tender@.service --target-directory=$out/lib/systemd/system
    substituteInPlace $out/lib/systemd/system/tender@.service --replace-fail /usr/bin/tender $out/bin/tender
  '';
  meta = {
    description = "Runs Solo5 hvt unikernels in KVM guests";
    homepage = "https://github.com/tender-vmm/tender";
    license = with lib.licenses; [ mit asl20 ];
    platforms = [ "x86_64-linux" "aarch64-linux" ];
    mainProgram = "tender";
  };
}
