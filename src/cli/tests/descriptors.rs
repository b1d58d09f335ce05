//! Descriptors instead of interfaces and paths.

use super::*;
use crate::config::{BlockSource, InheritedFd, NetSource};

#[test]
fn a_descriptor_has_a_number_or_a_name() {
    let net = |text: &str| {
        config(&[&format!("--net={text}"), "app"]).nets[0]
            .source
            .clone()
    };
    assert_eq!(net("@3"), Some(NetSource::Fd(3.into())));
    assert_eq!(
        net("@web"),
        Some(NetSource::Fd(InheritedFd::Name("web".into())))
    );
    let disk = |text: &str| {
        config(&[&format!("--block={text}"), "app"]).blocks[0]
            .source
            .clone()
    };
    assert_eq!(disk("@4"), Some(BlockSource::Fd(4.into())));
    assert_eq!(
        disk("@data"),
        Some(BlockSource::Fd(InheritedFd::Name("data".into())))
    );
    assert_eq!(disk("./@data"), Some(BlockSource::Path("./@data".into())));
    for text in ["@", "@a:b", "@2147483648", "@99999999999999999999"] {
        for option in ["net", "block", "disk"] {
            assert!(
                error(&[&format!("--{option}={text}")]).contains("not a file descriptor"),
                "{text}"
            );
        }
    }
}

#[test]
fn all_of_them_are_kept() {
    let both = config(&["--net=@7", "--block:a=@data", "--block:b=b.img", "app"]);
    assert!(
        both.inherited()
            .eq(&[InheritedFd::Number(7), InheritedFd::Name("data".into())])
    );
}
