//! The environment of the unikernel `hostile`: a disk with contents, and a peer on its network that
//! sends and receives frames.

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{FD, Output, pass_fd, text, unikernel};

/// The programs, one for each era.
pub const ERAS: [&str; 3] = ["hostile", "hostile-abi1", "hostile-e1"];

/// Bytes of the disk that are filled, and its size in bytes.
const PATTERN: usize = 1 << 20;
const DISK: u64 = 64 << 20;

/// The environment of one guest.
pub struct Environment {
    directory: tempfile::TempDir,
    over: Arc<AtomicBool>,
    network: Option<JoinHandle<()>>,
}

impl Environment {
    /// A command that runs `program` in a new environment.
    pub fn of(program: &str, options: &[&str], args: &[&str]) -> (Command, Environment) {
        let directory = super::directory();
        let path = directory.path().join("disk.img");
        // The contents look like indices, addresses and lengths, small and large, valid and
        // invalid.
        let pattern: Vec<u8> = (0..PATTERN)
            .map(|i| {
                if i % 8 < 4 {
                    ((i * i) >> 7) as u8
                } else {
                    (i >> 12) as u8
                }
            })
            .collect();
        let disk = File::create(&path)
            .and_then(|mut file| file.write_all(&pattern).and_then(|()| file.set_len(DISK)));
        disk.expect("there is room for a disk");
        let (ours, theirs) = UnixDatagram::pair().expect("a pair of sockets");
        ours.set_nonblocking(true).expect("a socket need not wait");
        let over = Arc::new(AtomicBool::new(false));
        let network = std::thread::spawn({
            let over = Arc::clone(&over);
            move || serve(&ours, &over)
        });
        let (net, disk) = (format!("--net=@{FD}"), format!("--disk={}", text(&path)));
        // `options` come last, but an option may not occur twice.
        let memory = if options.iter().any(|option| option.starts_with("--mem")) {
            &[][..]
        } else {
            &["--mem=4"]
        };
        let options = [&[net.as_str(), &disk], memory, options].concat();
        let command = pass_fd(unikernel(program, &options, args), theirs);
        (
            command,
            Environment {
                directory,
                over,
                network: Some(network),
            },
        )
    }

    /// Creates a file with this name, for output.
    pub fn file(&self, name: &str) -> File {
        File::create(self.directory.path().join(name)).expect("the directory is ours")
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(network) = self.network.take() {
            let _ = network.join();
        }
    }
}

fn serve(socket: &UnixDatagram, over: &AtomicBool) {
    let mut frame = [0; 65536];
    while !over.load(Ordering::SeqCst) {
        // Whether the frame is taken does not matter, nor what is received.
        let _ = socket.send(&[0xff; 60]);
        while socket.recv(&mut frame).is_ok() && !over.load(Ordering::SeqCst) {}
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Most warnings of one run: each kind is logged once.
const WARNINGS: usize = 8;

/// Checks the end of a run with `-v`: the guest's own exit, or exit status 1 and one error line
/// with the guest's position. In both cases there is no signal, and there are no more warnings than
/// kinds. Returns the error line.
#[track_caller]
pub fn ends_cleanly(output: &Output) -> Option<String> {
    let (news, lines): (Vec<_>, Vec<_>) = output
        .stderr
        .lines()
        .partition(|line| line.starts_with("tender: warn: ") || line.starts_with("tender: info: "));
    let warnings = news
        .iter()
        .filter(|line| line.starts_with("tender: warn: "))
        .count();
    assert!(
        warnings <= WARNINGS && !output.stderr.contains("panicked"),
        "{output:?}"
    );
    // A guest may halt with status 1 as well.
    let end = match output.code() {
        255 => "tender: warn: the guest aborted (status 255)".to_owned(),
        code => format!("tender: info: the guest halted with status {code}"),
    };
    let halted = news.contains(&end.as_str());
    match (output.code(), lines.as_slice()) {
        (1, [line]) if line.starts_with("tender: ") && line.contains("pc 0x") => {
            Some((*line).to_owned())
        }
        (_, []) if halted => None,
        _ => panic!("neither the guest's own end nor a report: {output:?}"),
    }
}
