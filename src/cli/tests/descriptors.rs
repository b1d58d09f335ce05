//! Descriptors in place of interfaces and paths.

use super::*;

#[test]
fn a_descriptor_has_a_number_or_a_name() {
    let net = |text: &str| config(&[&format!("--net={text}"), "app"]).nets[0].source.clone();
    assert_eq!(net("@3"), Some(NetSource::Fd(3.into())));
    assert_eq!(net("@web"), Some(NetSource::Fd(Handed::Name("web".into()))));
    let disk = |text: &str| config(&[&format!("--block={text}"), "app"]).blocks[0].source.clone();
    assert_eq!(disk("@4"), Some(BlockSource::Fd(4.into())));
    assert_eq!(disk("@data"), Some(BlockSource::Fd(Handed::Name("data".into()))));
    assert_eq!(disk("./@data"), Some(BlockSource::Path("./@data".into())));
    for text in ["@", "@a:b", "@2147483648", "@99999999999999999999"] {
        for option in ["net", "block", "disk"] {
            assert!(error(&[&format!("--{option}={text}")]).contains("not a file descriptor"), "{text}");
        }
    }
}

#[test]
fn all_of_them_are_kept() {
    let both = config(&["--net=@7", "--block:a=@data", "--block:b=b.img", "app"]);
    assert!(both.inherited().eq(&[Handed::Number(7), Handed::Name("data".into())]));
}
