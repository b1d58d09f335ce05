//! What gdb says to a stub, byte by byte: its remote serial protocol, as much of it as tests need, so that they run
//! where there is no gdb, and can do what gdb does not.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;

use goblin::elf::Elf;

use super::{Guest, LIMIT, fixture, unikernel};

/// The program counter among the registers of a `g`.
pub const PROGRAM_COUNTER: usize = if cfg!(target_arch = "x86_64") {
    16 * 8
} else {
    32 * 8
};

/// A debugger, connected to a tender.
pub struct Debugger {
    stream: TcpStream,
}

/// Starts the unikernel `name` with `--gdb` and these options, and waits until it waits for gdb; returns its port, too.
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
        port.unwrap_or_else(|| panic!("it should tell its port: {args:?}")),
    )
}

/// The same, with a debugger connected.
#[track_caller]
pub fn debug(name: &str, options: &[&str], arguments: &[&str]) -> (Guest, Debugger) {
    let (guest, port) = start(name, options, arguments);
    (guest, Debugger::connect(port))
}

/// Where a unikernel has this name.
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

/// Where a unikernel begins.
pub fn entry(unikernel: &str) -> u64 {
    let file = std::fs::read(fixture(unikernel)).expect("the unikernel can be read");
    Elf::parse(&file).expect("it is an ELF file").entry
}

impl Debugger {
    /// Connects.
    #[track_caller]
    pub fn connect(port: u16) -> Debugger {
        Debugger::over(TcpStream::connect(("127.0.0.1", port)).expect("the tender listens"))
    }

    /// A debugger on a connection, by TCP or a Unix socket.
    #[track_caller]
    pub fn over(stream: impl Into<OwnedFd>) -> Debugger {
        // All calls on it work on any stream socket.
        let stream = TcpStream::from(stream.into());
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        // A Unix socket has no such delay.
        let _ = stream.set_nodelay(true);
        Debugger { stream }
    }

    /// Sends bytes as they are. A tender that has hung up need not hear them.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends a packet.
    pub fn send(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
        self.send_raw(format!("${packet}#{sum:02x}").as_bytes());
    }

    /// The next packet that comes; none if the tender has hung up.
    #[track_caller]
    pub fn receive(&mut self) -> Option<String> {
        // Acknowledgements come before it.
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

    /// Sends a packet, and returns the answer.
    #[track_caller]
    pub fn ask(&mut self, packet: &str) -> String {
        self.send(packet);
        self.receive()
            .unwrap_or_else(|| panic!("the tender hung up at {packet:?}"))
    }

    /// Asks for something that is done.
    #[track_caller]
    pub fn order(&mut self, packet: &str) {
        assert_eq!(self.ask(packet), "OK", "of {packet}");
    }

    /// Asks for something that is refused.
    #[track_caller]
    pub fn is_refused(&mut self, packet: &str) {
        let answer = self.ask(packet);
        assert!(
            answer.starts_with('E'),
            "{packet} should be refused, not answered by {answer:?}"
        );
    }

    /// Lets the guest go on, and returns what becomes of it.
    #[track_caller]
    pub fn go_on(&mut self) -> String {
        self.ask("vCont;c")
    }

    /// What comes is that the guest has stopped by this signal, and why.
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

    /// Lets the guest go on until it stops by this signal, and returns why.
    #[track_caller]
    pub fn goes_on_until(&mut self, signal: i32) -> String {
        self.send("vCont;c");
        self.stops(signal)
    }

    /// Has it execute one instruction.
    #[track_caller]
    pub fn step(&mut self) {
        self.send("vCont;s:1");
        let why = self.stops(libc::SIGTRAP);
        assert!(!why.contains("break"), "a step, not {why:?}");
    }

    /// Stops it while it runs.
    #[track_caller]
    pub fn interrupt(&mut self) {
        self.send_raw(&[3]);
        self.stops(libc::SIGINT);
    }

    /// All registers.
    #[track_caller]
    pub fn registers(&mut self) -> Vec<u8> {
        bytes(&self.ask("g"))
    }

    /// The 64 bits at this place among the registers.
    #[track_caller]
    pub fn register(&mut self, place: usize) -> u64 {
        u64::from_le_bytes(self.registers()[place..place + 8].try_into().unwrap())
    }

    /// Where the guest is.
    #[track_caller]
    pub fn place(&mut self) -> u64 {
        self.register(PROGRAM_COUNTER)
    }

    /// Sets all registers.
    #[track_caller]
    pub fn set_registers(&mut self, registers: &[u8]) {
        self.order(&format!("G{}", hexadecimal(registers)));
    }

    /// The 64 bits of memory at this address.
    #[track_caller]
    pub fn memory(&mut self, address: u64) -> u64 {
        let answer = self.ask(&format!("m{address:x},8"));
        u64::from_le_bytes(
            bytes(&answer)
                .try_into()
                .unwrap_or_else(|_| panic!("8 bytes, not {answer:?}")),
        )
    }

    /// Lets the guest come to its end by itself, which has `status`.
    #[track_caller]
    pub fn ends(&mut self, status: u8) {
        assert_eq!(self.go_on(), format!("W{status:02x}"));
        assert_eq!(self.receive(), None, "a tender whose run is over hangs up");
    }
}

/// Undoes run-length encoding: `*` and a byte repeat what is before them.
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

/// Bytes of two digits each.
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

/// Two digits for each byte.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
