//! The configuration file: any text, together with a command line of devices that it may extend,
//! gives a command, or an error of one line with the position in the file.

use std::ffi::OsString;

use tender::cli::{self, Command, Configured};
use tender::report::message::Message;

use super::cli::check_values;

/// Parses `text` as the content of a configuration file.
pub fn check(text: &[u8]) {
    for args in [
        &["tender", "--config=f", "app"][..],
        &[
            "tender",
            "--config=d/f",
            "--net:a=t",
            "--net-mac=02:00:00:00:00:01",
        ],
    ] {
        match configured(args).parse(text) {
            Ok((Command::Run(config), paths)) => {
                check_values(&config);
                assert!(paths.iter().all(|named| named.place.line > 0
                    && named.place.column > 0
                    && !named.key.is_empty()));
            }
            Ok((command, _)) => panic!("{command:?}"),
            Err(error) => {
                let message = Message::from(error).to_string();
                assert!(
                    !message.is_empty() && !message.chars().any(char::is_control),
                    "{message:?}"
                );
            }
        }
    }
}

fn configured(args: &[&str]) -> Configured {
    match cli::parse(args.iter().map(OsString::from)) {
        Ok(Command::Configured(configured)) => configured,
        other => panic!("{other:?}"),
    }
}
