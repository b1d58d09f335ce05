//! The initial file system of an emulated machine: a cpio archive ("newc") written here, so that no
//! root is needed.

use std::path::{Path, PathBuf};

use crate::base::error::{Context, Result};
use crate::build::arch::Arch;
use crate::build::toolchain::StaticToolchain;
use crate::build::{cargo, fixtures};
use crate::dist;
use crate::machines::assets::Assets;
use crate::machines::host::{FIXTURES, TENDER};
use crate::machines::machine::Emulated;

/// Prefix of the lines from /init to xtask, among everything on the console.
pub const MARK: &str = "@lab:";

/// A cpio archive under construction.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

impl Archive {
    pub fn dir(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, (0, 0), &[]);
    }

    /// A program or script.
    pub fn program(&mut self, path: &str, content: &[u8]) {
        self.entry(path, FILE | 0o755, (0, 0), content);
    }

    pub fn text(&mut self, path: &str, content: &str) {
        self.entry(path, FILE | 0o644, (0, 0), content.as_bytes());
    }

    /// Copies a file of this machine, as a program.
    pub fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        let content =
            std::fs::read(from).context(format_args!("cannot read {}", from.display()))?;
        self.program(path, &content);
        Ok(())
    }

    /// Puts the unikernels into /fixtures.
    pub fn fixtures(&mut self, arch: Arch) -> Result<()> {
        let dir = fixtures::directory(arch);
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".hvt") {
                self.copy(&format!("fixtures/{name}"), &entry.path())?;
            }
        }
        Ok(())
    }

    /// Writes the archive out.
    pub fn write(mut self, to: &Path) -> Result<()> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        std::fs::write(to, &self.bytes).context(format_args!("cannot write {}", to.display()))
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let name = path.trim_start_matches('/');
        let links = if mode & DIRECTORY != 0 { 2 } else { 1 };
        // inode, mode, uid, gid, links, mtime, size, major and minor of the file system and of the
        // node, name, check.
        let (size, name_size) = (content.len() as u32, name.len() as u32 + 1);
        let fields = [
            self.entries,
            mode,
            0,
            0,
            links,
            0,
            size,
            0,
            0,
            device.0,
            device.1,
            name_size,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The machine's userland; /init runs the shell script `job` in it.
pub fn base(machine: Emulated, assets: &Assets, job: &str) -> Result<Archive> {
    let mut archive = starting(machine, assets, INIT)?;
    for dir in ["etc", "fixtures", "lab", "root", "run", "tests", "tmp"] {
        archive.dir(dir);
    }
    archive.text(
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    );
    archive.text("etc/group", "root:x:0:\nkvm:x:104:\nnogroup:x:65534:\n");
    archive.text("etc/hosts", "127.0.0.1 localhost\n");
    archive.text("lab/job", job);
    Ok(archive)
}

/// As [`base`], with tender, this program and the unikernels.
pub fn with_tender(machine: Emulated, assets: &Assets, job: &str) -> Result<Archive> {
    let tender = dist::binary(machine.arch())?;
    let mut archive = base(machine, assets, job)?;
    archive.copy("bin/tender", &tender)?;
    archive.copy("bin/xtask", &own_binary(machine.arch())?)?;
    archive.fixtures(machine.arch())?;
    Ok(archive)
}

/// Returns the shell command that runs this program's hidden `command` in the emulated machine.
/// [`super::host::inside`] is the same for this host.
pub fn inside(command: &str) -> String {
    format!("xtask {command} {TENDER} /bin/tender {FIXTURES} /fixtures")
}

/// Builds this program for use inside an emulated machine.
fn own_binary(arch: Arch) -> Result<PathBuf> {
    let mut build = cargo::cargo("build");
    build.args(["--package", "xtask"]);
    cargo::small_profile(&mut build);
    StaticToolchain::choose(arch)?.apply(&mut build);
    cargo::program(&mut build, "xtask")
}

/// Busybox, the machine's kernel modules, and an /init that prepares the kernel and continues with
/// the shell script `then`.
pub fn starting(machine: Emulated, assets: &Assets, then: &str) -> Result<Archive> {
    let mut archive = Archive::default();
    for dir in ["bin", "dev", "lib", "lib/modules", "proc", "sys"] {
        archive.dir(dir);
    }
    // The kernel opens /init's console by this node, before devtmpfs exists.
    archive.entry("dev/console", CHARACTER_DEVICE | 0o600, (5, 1), &[]);
    archive.copy("bin/busybox", &assets.file("busybox"))?;
    for (module, _) in machine.modules() {
        archive.copy(
            &format!("lib/modules/{module}.ko"),
            &assets.file(&format!("{module}.ko")),
        )?;
    }
    archive.program("init", init(machine, then).as_bytes());
    Ok(archive)
}

/// The first process.
fn init(machine: Emulated, then: &str) -> String {
    let mut modules = String::new();
    for (module, arguments) in machine.modules() {
        modules += &format!("insmod /lib/modules/{module}.ko {arguments}\n");
    }
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    let ready = READY
        .replace("@MODULES@", &modules)
        .replace("@NOW@", &now.to_string());
    ready + &then.replace("@MARK@", MARK)
}

// The Pi has no clock that runs while it is off, so the time is passed in. One reader fills the
// kernel's random pool in a second; several concurrent readers, on an emulated processor, would
// wait for each other for minutes.
const READY: &str = "\
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
dmesg -n 1
date -s @@NOW@ >/dev/null
@MODULES@head -c 1 /dev/random >/dev/null
";

// Configures the machine as a test expects of a Debian, runs the job, and switches off. The
// permissions of /dev/kvm and /dev/net/tun are those of Debian's udev.
const INIT: &str = "\
export HOME=/root USER=root TMPDIR=/tmp
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t tmpfs run /run
ln -s /proc/self/fd /dev/fd
chown 0:104 /dev/kvm
chmod 660 /dev/kvm
chmod 666 /dev/net/tun
hostname lab
ip link set lo up
cd /root
echo @MARK@up
sh /lab/job
echo @MARK@done $?
poweroff -f
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_as_the_kernel_reads_them() {
        let mut archive = Archive::default();
        archive.text("a", "hi!");
        assert_eq!(archive.bytes.len() % 4, 0);
        assert_eq!(&archive.bytes[..14], b"07070100000001");
        assert_eq!(&archive.bytes[14..22], b"000081a4");
        // Header of 110 bytes, "a\0", then the content at a multiple of four.
        assert_eq!(&archive.bytes[110..112], b"a\0");
        assert_eq!(&archive.bytes[112..116], b"hi!\0");
    }
}
