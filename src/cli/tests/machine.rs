//! Options of the machine: memory and engine.

use super::*;

#[test]
fn memory_sizes() {
    let size = |text: &str| config(&[&format!("--mem={text}"), "app"]).memory;
    for (text, mib) in [
        ("64", 64),
        ("64M", 64),
        ("64MiB", 64),
        ("64mib", 64),
        ("64MB", 64),
        ("1gb", 1024),
        ("1g", 1024),
        ("4GiB", 4096),
    ] {
        assert_eq!(
            size(text),
            Memory {
                asked: mib << 20,
                given: mib << 20
            },
            "{text}"
        );
    }
    for (text, mib) in [
        ("2048K", 2),
        ("002", 2),
        ("4096", 4096),
        ("4194304KiB", 4096),
    ] {
        assert_eq!(size(text).given, mib << 20, "{text}");
    }
    assert_eq!(
        size("3"),
        Memory {
            asked: 3 << 20,
            given: 2 << 20
        }
    );
    assert_eq!(
        size("2049K"),
        Memory {
            asked: 2049 << 10,
            given: 2 << 20
        }
    );
    assert_eq!(
        config(&["app"]).memory,
        Memory {
            asked: 512 << 20,
            given: 512 << 20
        }
    );
}

#[test]
fn huge_pages_are_chosen_once() {
    assert_eq!(config(&["app"]).huge_pages, HugePages::Auto);
    for (text, choice) in [
        ("auto", HugePages::Auto),
        ("on", HugePages::On),
        ("off", HugePages::Off),
    ] {
        let option = format!("--huge-pages={text}");
        assert_eq!(config(&[&option, "app"]).huge_pages, choice);
    }
    for text in ["", "On", "always", "true", "on "] {
        assert_eq!(
            error(&[&format!("--huge-pages={text}"), "app"]),
            format!("--huge-pages={text}: expected auto, on or off")
        );
    }
    assert_eq!(
        error(&["--huge-pages=on", "--huge-pages=on", "app"]),
        "option '--huge-pages' is given twice"
    );
}

#[test]
fn an_engine_is_chosen_once() {
    assert_eq!(
        config(&["app"]).engine,
        EngineChoice::Only(Engine::Kvm),
        "a process is never a silent choice"
    );
    for (text, choice) in [
        ("kvm", EngineChoice::Only(Engine::Kvm)),
        ("process", EngineChoice::Only(Engine::Process)),
        ("auto", EngineChoice::Auto),
    ] {
        let option = format!("--engine={text}");
        assert_eq!(config(&[&option, "app"]).engine, choice);
    }
    for text in ["", "KVM", "spt", "true", "kvm "] {
        assert_eq!(
            error(&[&format!("--engine={text}"), "app"]),
            format!("--engine={text}: expected kvm, process or auto")
        );
    }
    assert_eq!(
        error(&["--engine=kvm", "--engine=auto", "app"]),
        "option '--engine' is given twice"
    );
}

#[test]
fn impossible_memory_sizes_are_refused() {
    for text in [
        "", "M", "64foo", "64B", "0x40", "+64", "-1", "1.5G", "64 M", "６４", "64M ",
    ] {
        let message = error(&[&format!("--mem={text}")]);
        assert!(
            message.starts_with(&format!("--mem={text}: not an amount of memory; write")),
            "{message}"
        );
    }
    for text in ["0", "1", "2047K", "0G"] {
        assert!(error(&[&format!("--mem={text}")]).contains("too little memory; give 2M to 4G"));
    }
    assert_eq!(
        error(&["--mem=67108864"]),
        "--mem=67108864: too much memory, as a bare number counts MiB; did you mean 64M?"
    );
    for text in [
        "4097",
        "5G",
        "4194305K",
        "4294967297",
        "99999999999999999999999999999G",
        "18446744073709551615",
    ] {
        assert!(error(&[&format!("--mem={text}")]).contains("too much memory; give 2M to 4G"));
    }
}
