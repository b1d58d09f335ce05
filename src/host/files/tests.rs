use std::fs;
use std::io::Read;

use super::*;

#[test]
fn a_file_is_opened_through_its_pin_and_not_by_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let [path, other] = ["file", "other"].map(|name| directory.path().join(name));
    fs::write(&path, "found").unwrap();
    fs::write(&other, "another").unwrap();
    let look = Files::default().take(&path, Need::Read).unwrap();
    fs::rename(&other, &path).unwrap();
    let mut text = String::new();
    look.open(fs::File::options().read(true))
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "found");
}

#[test]
fn paths_of_descriptors_are_recognised() {
    for (path, number) in [
        ("/dev/fd/3", Some(3)),
        ("/proc/self/fd/12", Some(12)),
        ("/proc/thread-self/fd/0", Some(0)),
        ("/dev/fd/x", None),
        ("/dev/fd/3/x", None),
        ("/dev/fd", None),
        ("dev/fd/3", None),
    ] {
        assert_eq!(descriptor_in(Path::new(path)), number, "{path}");
    }
}

#[test]
fn a_new_file_is_in_the_directory_that_was_found() {
    let directory = tempfile::tempdir().unwrap();
    let [path, moved] = ["folder", "moved"].map(|name| directory.path().join(name));
    fs::create_dir(&path).unwrap();
    let place = Files::default().place(&path.join("new")).unwrap();
    fs::rename(&path, &moved).unwrap();
    fs::create_dir(&path).unwrap();
    place.create_new().unwrap();
    assert!(moved.join("new").exists() && !path.join("new").exists());
    assert_eq!(
        place.create_new().unwrap_err().kind(),
        io::ErrorKind::AlreadyExists
    );
    fs::write(path.join("new"), "not ours").unwrap();
    place.remove();
    assert!(!moved.join("new").exists() && path.join("new").exists());
    for path in ["/", "folder/", ".."] {
        let error = Files::default().place(Path::new(path)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EISDIR), "{path}");
    }
}
