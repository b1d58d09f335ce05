//! `kill -9` at random times: an acknowledged block write is in the image afterwards. This is about
//! the process: the kernel and its page cache survive. After a power failure, unsynchronised writes
//! may be lost.

use std::os::unix::fs::FileExt;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::common::Need::Kvm;
use crate::common::{Guest, trial};
use crate::host_faults::Image;

/// Number of runs, unless the environment sets it.
const KILLS: u64 = if cfg!(target_arch = "aarch64") {
    20
} else {
    200
};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("kill::acknowledged_writes_are_never_lost")
            .needs(&[Kvm])
            .run(acknowledged_writes_are_never_lost),
    ]
}

const SECTORS: u64 = Image::SIZE / 512;

fn acknowledged_writes_are_never_lost() {
    let kills = std::env::var("TENDER_KILLS").map_or(KILLS, |count| count.parse().unwrap());
    let mut random = Random::new();
    println!("kill: {kills} times, seed {:#x}", random.0);
    let (mut writes, mut none, mut unseen) = (0, 0, 0);
    for kill in 0..kills {
        let image = Image::new();
        let mut guest = Guest::start(&mut image.block(&["numbered=1000000000"]));
        // One run in eight is killed while it starts, the others at any write.
        if kill % 8 != 0 {
            guest.wait_for(&format!("wrote {}\n", random.below(300) + 1));
            std::thread::sleep(Duration::from_micros(random.below(3000)));
        } else {
            std::thread::sleep(Duration::from_micros(random.below(40_000)));
        }
        guest.signal(libc::SIGKILL);
        let output = guest.end();
        output.dies_by(libc::SIGKILL).is_quiet();
        let acknowledged = acknowledged(&output.stdout);
        unseen += verify(&image, acknowledged);
        writes += acknowledged;
        none += u64::from(acknowledged == 0);
    }
    println!(
        "kill: {kills} kills, {writes} acknowledged writes, none lost; {none} before the first write, {unseen} wrote \
         one more than acknowledged"
    );
    assert!(
        none < kills / 2 + 1 && writes > kills,
        "{writes} writes, {none} runs without any"
    );
}

/// Returns the last write that the guest acknowledged; an incomplete last line does not count.
pub fn acknowledged(output: &str) -> u64 {
    let lines = output.rsplit_once('\n').map_or("", |(lines, _)| lines);
    lines
        .lines()
        .filter_map(|line| line.strip_prefix("wrote ")?.parse().ok())
        .max()
        .unwrap_or(0)
}

/// Checks that each sector holds the last number acknowledged for it, whole. Returns 1 if there is
/// one further write, whose acknowledgement was not read.
pub fn verify(image: &Image, acknowledged: u64) -> u64 {
    let file = std::fs::File::open(image.path()).unwrap();
    let mut more = 0;
    for sector in 0..SECTORS {
        let mut bytes = [0; 512];
        file.read_exact_at(&mut bytes, sector * 512).unwrap();
        let numbers: Vec<_> = bytes
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
            .collect();
        assert!(
            numbers.iter().all(|number| *number == numbers[0]),
            "sector {sector} is torn: {numbers:?}"
        );
        // The largest number of a write to this sector up to the acknowledged one; 0 if there was
        // none.
        let rounds = (acknowledged + SECTORS - sector) / SECTORS;
        let wanted = (rounds * SECTORS + sector).saturating_sub(SECTORS);
        if numbers[0] == acknowledged + 1 {
            more += 1;
        } else {
            assert_eq!(
                numbers[0], wanted,
                "sector {sector} after {acknowledged} acknowledged writes"
            );
        }
    }
    assert!(more <= 1, "{more} writes more than were acknowledged");
    more
}

/// Numbers from a seed: xorshift.
pub struct Random(u64);

impl Random {
    pub fn with(seed: u64) -> Random {
        Random(seed)
    }

    fn new() -> Random {
        let mut seed = [0; 8];
        // SAFETY: there is room for as many bytes as are asked for.
        let count = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), 0) };
        assert_eq!(count, 8);
        Random(u64::from_le_bytes(seed) | 1)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
