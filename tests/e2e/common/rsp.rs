//! A client of gdb's remote serial protocol, with the parts that the tests need. The tests then run
//! where there is no gdb, and can send what gdb never sends.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;

use goblin::elf::Elf;

use super::{Guest, LIMIT, fixture, unikernel};

/// Index of the program counter in the reply to `g`.
pub const PROGRAM_COUNTER: usize = if cfg!(target_arch = "x86_64") {
    16 * 8
} else {
    32 * 8
};

/// A debugger, connected to `tender`.
pub struct Debugger {
    stream: TcpStream,
}

/// Starts the unikernel `name` with `--gdb` and these options, and waits until `tender` listens for
/// gdb; also returns the port.
#[track_caller]
pub fn start(name: &str, options: &[&str], arguments: &[&str]) -> (Guest, u16) {
    let mut args = vec!["--mem=4", "--gdb", "--gdb-port=0"];
    args.extend(options);
    let guest = Guest::start(&mut unikernel(name, &args, arguments));
    guest.wait_for_complaint(&format!("{name}.hvt\n"));
    let args = guest.messages();
    let port = args
        .split("target remote 127.0.0.1:")
        .nth(1)
        .and_then(|rest| rest.split('\'').next());
    let port = port.and_then(|port| port.parse().ok());
    (
        guest,
        port.unwrap_or_else(|| panic!("no port in its output: {args:?}")),
    )
}

/// As `start`, with a debugger connected.
#[track_caller]
pub fn debug(name: &str, options: &[&str], arguments: &[&str]) -> (Guest, Debugger) {
    let (guest, port) = start(name, options, arguments);
    (guest, Debugger::connect(port))
}

/// Returns the address of a symbol of the unikernel.
#[track_caller]
pub fn symbol(unikernel: &str, name: &str) -> u64 {
    let file = std::fs::read(fixture(unikernel)).expect("the unikernel can be read");
    let elf = Elf::parse(&file).expect("it is an ELF file");
    let symbol = elf
        .syms
        .iter()
        .find(|symbol| elf.strtab.get_at(symbol.st_name) == Some(name));
    symbol
        .unwrap_or_else(|| panic!("{unikernel} should have a {name}"))
        .st_value
}

/// Returns the entry address of the unikernel.
pub fn entry(unikernel: &str) -> u64 {
    let file = std::fs::read(fixture(unikernel)).expect("the unikernel can be read");
    Elf::parse(&file).expect("it is an ELF file").entry
}

/// Returns the offset of that address in the file.
pub fn entry_offset(unikernel: &str) -> usize {
    let file = std::fs::read(fixture(unikernel)).expect("the unikernel can be read");
    let elf = Elf::parse(&file).expect("it is an ELF file");
    let mut segments = elf.program_headers.iter();
    let segment = segments.find(|segment| segment.vm_range().contains(&(elf.entry as usize)));
    let segment = segment.expect("the entry is in a segment");
    (segment.p_offset + elf.entry - segment.p_vaddr) as usize
}

impl Debugger {
    /// Connects.
    #[track_caller]
    pub fn connect(port: u16) -> Debugger {
        Debugger::over(TcpStream::connect(("127.0.0.1", port)).expect("the tender listens"))
    }

    /// A debugger on a TCP or Unix socket.
    #[track_caller]
    pub fn over(stream: impl Into<OwnedFd>) -> Debugger {
        // All calls on it work on any stream socket.
        let stream = TcpStream::from(stream.into());
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        // Fails for a Unix socket, which has no such delay.
        let _ = stream.set_nodelay(true);
        Debugger { stream }
    }

    /// Sends raw bytes. Errors are ignored: `tender` may have hung up.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends a packet.
    pub fn send(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
        self.send_raw(format!("${packet}#{sum:02x}").as_bytes());
    }

    /// Returns the next packet; `None` if `tender` has hung up.
    #[track_caller]
    pub fn receive(&mut self) -> Option<String> {
        // Acknowledgements precede it.
        while self.byte()? != b'$' {}
        let mut packet = Vec::new();
        loop {
            match self.byte()? {
                b'#' => break,
                byte => packet.push(byte),
            }
        }
        let sum = format!("{}{}", char::from(self.byte()?), char::from(self.byte()?));
        let expected = packet.iter().copied().fold(0_u8, u8::wrapping_add);
        assert_eq!(
            u8::from_str_radix(&sum, 16),
            Ok(expected),
            "the sum of {:?}",
            String::from_utf8_lossy(&packet)
        );
        self.send_raw(b"+");
        Some(expand(
            &String::from_utf8(packet).expect("answers are text"),
        ))
    }

    #[track_caller]
    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(1) => Some(byte[0]),
            Ok(_) => None,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("the tender does not answer: {error}"),
        }
    }

    /// Sends a packet and returns the reply.
    #[track_caller]
    pub fn ask(&mut self, packet: &str) -> String {
        self.send(packet);
        self.receive()
            .unwrap_or_else(|| panic!("the tender hung up at {packet:?}"))
    }

    /// Sends a request and expects `OK`.
    #[track_caller]
    pub fn expect_ok(&mut self, packet: &str) {
        assert_eq!(self.ask(packet), "OK", "of {packet}");
    }

    /// Sends a request and expects an error.
    #[track_caller]
    pub fn is_refused(&mut self, packet: &str) {
        let answer = self.ask(packet);
        assert!(
            answer.starts_with('E'),
            "{packet} should be refused, not answered by {answer:?}"
        );
    }

    /// Resumes the guest and returns its next stop reply.
    #[track_caller]
    pub fn resume(&mut self) -> String {
        self.ask("vCont;c")
    }

    /// Expects a stop reply with this signal; returns its reason.
    #[track_caller]
    pub fn stops(&mut self, signal: i32) -> String {
        let why = self.receive().expect("the tender answers");
        let stopped = why.starts_with(&format!("S{signal:02x}"))
            || why.starts_with(&format!("T{signal:02x}"));
        assert!(
            stopped,
            "signal {signal} should have stopped the guest, not {why:?}"
        );
        why
    }

    /// Resumes the guest until it stops with this signal; returns the reason.
    #[track_caller]
    pub fn resumes_until(&mut self, signal: i32) -> String {
        self.send("vCont;c");
        self.stops(signal)
    }

    /// Executes one instruction of the guest.
    #[track_caller]
    pub fn step(&mut self) {
        self.send("vCont;s:1");
        let why = self.stops(libc::SIGTRAP);
        assert!(!why.contains("break"), "a step, not {why:?}");
    }

    /// Interrupts the running guest.
    #[track_caller]
    pub fn interrupt(&mut self) {
        self.send_raw(&[3]);
        self.stops(libc::SIGINT);
    }

    /// Reads all registers.
    #[track_caller]
    pub fn registers(&mut self) -> Vec<u8> {
        bytes(&self.ask("g"))
    }

    /// Reads the 64 bits at this index among the registers.
    #[track_caller]
    pub fn register(&mut self, index: usize) -> u64 {
        u64::from_le_bytes(self.registers()[index..index + 8].try_into().unwrap())
    }

    /// Reads the program counter.
    #[track_caller]
    pub fn program_counter(&mut self) -> u64 {
        self.register(PROGRAM_COUNTER)
    }

    /// Sets all registers.
    #[track_caller]
    pub fn set_registers(&mut self, registers: &[u8]) {
        self.expect_ok(&format!("G{}", hexadecimal(registers)));
    }

    /// Reads the 64 bits of memory at this address.
    #[track_caller]
    pub fn memory(&mut self, address: u64) -> u64 {
        let answer = self.ask(&format!("m{address:x},8"));
        u64::from_le_bytes(
            bytes(&answer)
                .try_into()
                .unwrap_or_else(|_| panic!("8 bytes, not {answer:?}")),
        )
    }

    /// Resumes the guest, which must exit with `status`.
    #[track_caller]
    pub fn ends(&mut self, status: u8) {
        assert_eq!(self.resume(), format!("W{status:02x}"));
        assert_eq!(self.receive(), None, "a tender whose run is over hangs up");
    }
}

/// Undoes run-length encoding: `*` and a byte repeat the character before them.
fn expand(packet: &str) -> String {
    let mut expanded = String::new();
    let mut rest = packet.chars();
    while let Some(next) = rest.next() {
        match (next, expanded.chars().last()) {
            ('*', Some(last)) => {
                let count = rest.next().map_or(0, |count| count as usize - 29);
                expanded.extend(std::iter::repeat_n(last, count));
            }
            _ => expanded.push(next),
        }
    }
    expanded
}

/// Decodes hexadecimal, two digits a byte.
#[track_caller]
pub fn bytes(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        std::str::from_utf8(pair)
            .ok()
            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
    };
    pairs
        .map(|pair| byte(pair).unwrap_or_else(|| panic!("{text:?} should be hexadecimal")))
        .collect()
}

/// Encodes as hexadecimal, two digits a byte.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
