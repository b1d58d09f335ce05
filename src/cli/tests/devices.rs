//! Options of devices.

use super::*;

#[test]
fn options_of_a_device_are_merged_in_any_order() {
    let config = config(&[
        "--net-mac:wan=02:00:00:00:00:02",
        "--block-sector-size:data=4096",
        "--net:lan=tap0",
        "--block:data=disk.img",
        "--net:wan=@7",
        "--block:lan=other.img",
        "app",
    ]);
    assert_eq!(
        config.nets,
        [
            net(Some("lan"), interface("tap0"), None),
            net(
                Some("wan"),
                Some(NetSource::Fd(7.into())),
                Some([2, 0, 0, 0, 0, 2])
            ),
        ]
    );
    assert_eq!(
        config.blocks,
        [
            block(Some("data"), Some("disk.img"), Some(4096)),
            block(Some("lan"), Some("other.img"), None)
        ]
    );
}

#[test]
fn disk_is_block() {
    let disk = |path| BlockOption {
        option: "disk",
        ..block(None, Some(path), None)
    };
    assert_eq!(config(&["--disk=a b,c=d", "app"]).blocks, [disk("a b,c=d")]);
    assert_eq!(config(&["--disk", "x", "app"]).blocks, [disk("x")]);
    assert_eq!(
        config(&["--block=x", "app"]).blocks,
        [block(None, Some("x"), None)]
    );
    assert!(error(&["--disk=a", "--block=b"]).contains("same device"));
    assert_eq!(
        error(&["--disk=a", "--disk=b"]),
        "option '--disk' is given twice"
    );
    assert_eq!(
        error(&["--disk:x=a"]),
        "unknown option '--disk:x'; did you mean '--disk'?"
    );
}

#[test]
fn a_device_may_be_called_name() {
    assert_eq!(
        config(&["--net:NAME=tap0", "app"]).nets,
        [net(Some("NAME"), interface("tap0"), None)]
    );
}

#[test]
fn mac_addresses() {
    let mac = |text: &str| config(&[&format!("--net-mac={text}"), "app"]).nets[0].mac;
    assert_eq!(
        mac("02:aB:Cd:00:10:ff"),
        Some([2, 0xab, 0xcd, 0, 0x10, 0xff])
    );
    // As upstream's tenders accept them.
    assert_eq!(mac("2:0:a:00:10:f"), Some([2, 0, 10, 0, 0x10, 15]));
    for text in [
        "",
        "02",
        "02:00:00:00:00",
        "02:00:00:00:00:01:02",
        "002:0:0:0:0:1",
        "2::0:0:0:1",
        "02-00-00-00-00-01",
        "+2:00:00:00:00:01",
    ] {
        assert!(
            error(&[&format!("--net-mac={text}")]).contains("not a MAC address; write six pairs"),
            "{text}"
        );
    }
    assert!(error(&["--net-mac=01:00:5e:00:00:01"]).contains("multicast"));
    assert!(error(&["--net-mac:a=ff:ff:ff:ff:ff:ff"]).contains("multicast"));
    assert!(error(&["--net-mac=00:00:00:00:00:00"]).contains("zero address"));
}

#[test]
fn interfaces_and_descriptors() {
    let source = |text: &str| {
        config(&[&format!("--net={text}"), "app"]).nets[0]
            .source
            .clone()
    };
    assert_eq!(source("tap100"), interface("tap100"));
    assert_eq!(source("fifteen-letters"), interface("fifteen-letters"));
    assert_eq!(source("@0"), Some(NetSource::Fd(0.into())));
    assert_eq!(source("@2147483647"), Some(NetSource::Fd(i32::MAX.into())));
    for text in [
        "",
        "sixteen-letters-",
        "a/b",
        "a b",
        "a\tb",
        "eth0:1",
        ".",
        "..",
        "a\0b",
    ] {
        assert!(
            error(&[&format!("--net={text}")]).contains("not an interface name"),
            "{text}"
        );
    }
    let message = error(&["--net:a=tap0", "--net:b=tap0"]);
    assert_eq!(
        message,
        "--net:b=tap0: another network device already uses 'tap0'; give each its own interface"
    );
}

#[test]
fn sector_sizes() {
    for size in [512, 1024, 2048, 4096, 8192, 16384, 32768] {
        let given = config(&[&format!("--block-sector-size:d={size}"), "app"]).blocks;
        assert_eq!(given, [block(Some("d"), None, Some(size))]);
    }
    for text in [
        "",
        "0",
        "1",
        "256",
        "513",
        "4k",
        "65536",
        "-512",
        "99999999999999999999",
    ] {
        assert!(
            error(&[&format!("--block-sector-size:d={text}")]).contains("not a sector size"),
            "{text}"
        );
    }
}

#[test]
fn names_of_devices() {
    let longest = "a".repeat(67);
    assert_eq!(
        config(&[&format!("--net:{longest}=tap0"), "app"]).nets[0].name,
        Some(longest)
    );
    for name in ["", "a-b", "a:b", "a b", "ä", &"a".repeat(68)] {
        let message = error(&[&format!("--net:{name}=tap0")]);
        assert!(message.contains("is not a device name"), "{message}");
    }
}
