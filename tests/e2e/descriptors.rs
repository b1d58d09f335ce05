//! Open files of a run, and host addresses in guest memory: nothing but what the run needs.

use libtest_mimic::Trial;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::common::Need::Kvm;
use crate::common::{self, FD, Guest, by_process, pass_fd, refuse, run, text, unikernel};
use guest_abi::boot::BOOT_INFO_ADDRESS;
use guest_abi::manifest::{Entry, Header};
use zerocopy::FromBytes;

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(what_is_inherited_is_closed, Kvm),
        trial!(what_is_inherited_is_closed_on_old_kernels, Kvm),
        trial!(only_what_the_run_needs_is_open, Kvm),
        trial!(closed_streams_are_not_taken, Kvm),
        trial!(no_address_of_the_hosts_is_in_guest_memory, Kvm),
    ]
}

/// Returns the targets of a process's descriptors.
fn open(guest: &Guest) -> BTreeMap<i32, String> {
    let entries = fs::read_dir(format!("/proc/{}/fd", guest.pid()))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let open = entries.map(|path: PathBuf| {
        let link = fs::read_link(&path).unwrap();
        (
            path.file_name().unwrap().to_str().unwrap().parse().unwrap(),
            text(&link).to_owned(),
        )
    });
    open.collect()
}

/// A guest that has printed a line and sleeps.
fn sleeping(change: impl FnOnce(Command) -> Command) -> Guest {
    let command = unikernel("clock", &["--mem=2"], &["poll=100000000000"]);
    let guest = Guest::start(&mut change(command));
    guest.wait_for("Hz\n");
    guest
}

/// POLL waits with an epoll set; before Linux 5.11 with a timer in it.
fn is_for_poll(link: &str) -> bool {
    ["anon_inode:[eventpoll]", "anon_inode:[timerfd]"].contains(&link)
}

fn has_only_its_machine(guest: &Guest) {
    let open = open(guest);
    assert!(open.keys().take(3).eq(&[0, 1, 2]), "{open:?}");
    let rest: Vec<_> = open
        .values()
        .skip(3)
        .filter(|link| !is_for_poll(link))
        .map(String::as_str)
        .collect();
    let machine = &["anon_inode:kvm-v"; 2][..if by_process() { 0 } else { 2 }];
    let is_machine = rest
        .iter()
        .zip(machine)
        .all(|(link, kind)| link.starts_with(kind));
    assert!(rest.len() == machine.len() && is_machine, "{open:?}");
}

fn what_is_inherited_is_closed() {
    has_only_its_machine(&sleeping(|command| {
        pass_fd(command, File::open("/dev/null").unwrap())
    }));
}

/// Linux has close_range since 5.9; a container may reject it.
fn what_is_inherited_is_closed_on_old_kernels() {
    has_only_its_machine(&sleeping(|command| {
        let mut command = pass_fd(command, File::open("/dev/null").unwrap());
        refuse::fails(&mut command, libc::SYS_close_range, &[], libc::ENOSYS);
        command
    }));
}

/// A guest that waits on an interface. The caller keeps the other end.
fn with_interface() -> (Guest, UnixDatagram) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let ring = if by_process() { "off" } else { "on" };
    let options = [
        "--mem=4",
        &format!("--net-ring={ring}"),
        &format!("--net=@{FD}"),
    ];
    let guest = Guest::start(&mut pass_fd(
        unikernel("net", &options, &["--ipv4=10.0.0.2/24"]),
        theirs,
    ));
    // The guest's ARP announcement, after which it waits.
    ours.recv(&mut [0; 2000]).unwrap();
    (guest, ours)
}

fn only_what_the_run_needs_is_open() {
    let (guest, _ours) = with_interface();
    let mut rest: Vec<_> = open(&guest).into_iter().filter(|(fd, _)| *fd > 2).collect();
    let polls = rest.iter().filter(|(_, link)| is_for_poll(link)).count();
    assert!((1..=2).contains(&polls), "{rest:?}");
    for (fd, link) in &rest {
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/{fd}", guest.pid())).unwrap();
        let flags = info
            .lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .expect("descriptors have flags");
        let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
        assert!(
            flags & libc::O_CLOEXEC != 0,
            "descriptor {fd} ({link}) survives exec: {info}"
        );
    }
    // The interface again, for the ring.
    let kinds = ["socket:", "kvm-vm", "kvm-vcpu", "socket:"];
    for kind in &kinds[..if by_process() { 1 } else { 4 }] {
        let at = rest
            .iter()
            .position(|(_, link)| link.contains(kind))
            .unwrap_or_else(|| panic!("no {kind}: {rest:?}"));
        rest.remove(at);
    }
    rest.retain(|(_, link)| !is_for_poll(link));
    assert!(rest.is_empty(), "open for nothing: {rest:?}");
}

/// If a disk became standard output, the guest's output would overwrite it.
fn closed_streams_are_not_taken() {
    let directory = common::directory();
    let path = directory.path().join("disk.img");
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let disk = format!("--disk={}", text(&path));
    let mut closed = unikernel("block", &["--mem=4", &disk], &["fill"]);
    // SAFETY: close is safe between fork and exec; the pipes that it closes have no other owner
    // there.
    unsafe {
        closed.pre_exec(|| {
            for stream in [0, 1, 2] {
                libc::close(stream);
            }
            Ok(())
        });
    }
    run(&mut closed).exits(0);
    run(&mut unikernel("block", &["--mem=4", &disk], &["verify"])).exits(0);
}

/// Returns the address ranges of a process, with the mapped files.
fn mappings(guest: &Guest) -> Vec<(u64, u64, String)> {
    let maps = fs::read_to_string(format!("/proc/{}/maps", guest.pid())).unwrap();
    let parse = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let address = |word| u64::from_str_radix(word, 16).ok();
        Some((address(start)?, address(end)?, rest.to_owned()))
    };
    maps.lines()
        .map(|line| parse(line).unwrap_or_else(|| panic!("{line}")))
        .collect()
}

/// All of a waiting guest's memory is read from outside. No byte of it begins an address of
/// `tender`'s, and its manifest contains nothing else. Addresses below 4 GiB, which can be the
/// guest's own, are ignored; `tender`'s heap, stack and the guest's memory lie above.
fn no_address_of_the_hosts_is_in_guest_memory() {
    const SIZE: u64 = 4 << 20;
    let (guest, _ours) = with_interface();
    let mappings = mappings(&guest);
    let high: Vec<_> = mappings
        .iter()
        .filter(|(start, ..)| *start >= 1 << 32)
        .collect();
    assert!(high.len() >= 3, "{mappings:?}");
    let memory = File::open(format!("/proc/{}/mem", guest.pid())).unwrap();
    let ram = ram(&memory, &mappings, SIZE);
    let leaked = ram.windows(8).enumerate().find_map(|(at, bytes)| {
        let word = u64::from_le_bytes(bytes.try_into().unwrap());
        if word < 1 << 32 {
            return None;
        }
        high.iter()
            .find(|(start, end, _)| (*start..*end).contains(&word))
            .map(|mapping| (at, word, mapping))
    });
    assert!(
        leaked.is_none(),
        "at {:#x} is {:#x}, an address in {:?}",
        leaked.unwrap().0,
        leaked.unwrap().1,
        leaked
    );
    let manifest = &ram[BOOT_INFO_ADDRESS as usize + 56..];
    let (header, entries) = Header::read_from_prefix(manifest).unwrap();
    assert_eq!((header.version, header.entries), (1, 2));
    for index in 0..2 {
        let entry = Entry::read_from_prefix(&entries[index * size_of::<Entry>()..])
            .unwrap()
            .0;
        assert_eq!(
            (entry.host, entry.pad, entry.attached),
            ([0; 8], [0; 7], index as u8)
        );
        let end = entry.name.iter().position(|byte| *byte == 0).unwrap();
        assert!(
            entry.name[end..]
                .iter()
                .chain(&entry.properties[8..])
                .all(|byte| *byte == 0),
            "{entry:?}"
        );
    }
}

/// Guest memory, recognised by the start of its boot pages: returns its size, and where its
/// manifest is.
fn ram(memory: &File, mappings: &[(u64, u64, String)], size: u64) -> Vec<u8> {
    let mut candidates = mappings
        .iter()
        .filter(|(start, end, _)| end - start >= size)
        .map(|(start, end, _)| {
            // Aligned as huge pages are.
            let start = start.next_multiple_of(2 << 20);
            let mut bytes = vec![0; (end - start).min(size) as usize];
            memory.read_exact_at(&mut bytes, start).map(|()| bytes)
        });
    let is_ram = |bytes: &Vec<u8>| {
        let at = BOOT_INFO_ADDRESS as usize;
        bytes.len() as u64 == size
            && u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) == size
    };
    candidates
        .find_map(|bytes| bytes.ok().filter(is_ram))
        .unwrap_or_else(|| panic!("no guest memory: {mappings:?}"))
}
