//! The command line: any arguments (bytes between NULs) give a command, or an error of one line.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use tender::cli::{self, Command};
use tender::config::{Config, Engine, EngineChoice, Memory};
use tender::report::message::Message;

/// Parses `bytes` as a command line.
pub fn check(bytes: &[u8]) {
    let args = bytes
        .split(|&byte| byte == 0)
        .map(|word| OsString::from_vec(word.to_vec()));
    let args: Vec<OsString> = std::iter::once(OsString::from("tender"))
        .chain(args)
        .collect();
    match cli::parse(args.clone()) {
        Ok(Command::Run(config) | Command::Check(config)) => check_config(&config, &args),
        Ok(
            Command::Configured(_)
            | Command::Inspect(_)
            | Command::Help(_)
            | Command::Version { .. },
        ) => {}
        Err(error) => {
            let message = Message::from(error).to_string();
            assert!(
                !message.is_empty() && !message.chars().any(char::is_control),
                "{message:?}"
            );
        }
    }
}

fn check_config(config: &Config, args: &[OsString]) {
    // The arguments after the unikernel are the guest's, even if they look like options.
    assert!(args.ends_with(&config.arguments));
    assert_eq!(
        args[args.len() - config.arguments.len() - 1],
        config.unikernel
    );
    for (index, net) in config.nets.iter().enumerate() {
        assert!(
            config.nets[..index]
                .iter()
                .all(|other| other.name != net.name)
        );
        assert!(
            net.source.is_none()
                || config.nets[..index]
                    .iter()
                    .all(|other| other.source != net.source)
        );
    }
    for (index, block) in config.blocks.iter().enumerate() {
        assert!(
            config.blocks[..index]
                .iter()
                .all(|other| other.name != block.name)
        );
    }
    // A weaker wall is asked for by name, before the unikernel.
    let options = &args[1..args.len() - config.arguments.len() - 1];
    let names_engine = options
        .iter()
        .any(|option| option.as_bytes().starts_with(b"--engine"));
    assert!(names_engine || config.engine == EngineChoice::Only(Engine::Kvm));
    check_values(config);
}

/// Checks properties of every configuration, from any source.
pub(super) fn check_values(config: &Config) {
    let given = config.memory.given;
    assert!((Memory::STEP..=Memory::MAX).contains(&given) && given % Memory::STEP == 0);
    assert!(given <= config.memory.asked && config.memory.asked - given < Memory::STEP);
    assert!(!config.unikernel.as_os_str().is_empty());
    assert!(config.name().chars().count() <= 64);
    for net in &config.nets {
        assert!(net.source.is_some() || net.mac.is_some());
        assert!(net.mac.is_none_or(|mac| mac[0] & 1 == 0 && mac != [0; 6]));
    }
    for block in &config.blocks {
        assert!(block.source.is_some() || block.sector_size.is_some());
        assert!(
            block
                .source
                .as_ref()
                .is_none_or(|source| !source.to_string().is_empty())
        );
        assert!(
            block
                .sector_size
                .is_none_or(|size| size.is_power_of_two() && (512..=32768).contains(&size))
        );
    }
}
