//! Links between documents of a package.

use std::path::{Component, Path, PathBuf};

use super::tree::Tree;

/// The files of the repository, on the web.
const REPOSITORY: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main");

/// Makes links of the documents below `top` that lead to files which the package lacks lead to the
/// repository.
pub fn complete(tree: &mut Tree, top: &Path) {
    let paths = tree.paths();
    tree.rewrite(".md", |path, text| {
        let Ok(document) = path.strip_prefix(top) else {
            return text.to_owned();
        };
        let directory = document.parent().unwrap_or(document);
        changed(text, directory, |file| paths.contains(&top.join(file)))
    });
}

/// Returns `text`, a document in `directory` of the repository, with addresses for links to files
/// that are not there.
fn changed(text: &str, directory: &Path, is_there: impl Fn(&Path) -> bool) -> String {
    let change = |link: &str| {
        let (file, anchor) = link.split_at(link.find('#').unwrap_or(link.len()));
        let path = plain(&directory.join(file));
        let is_path = !file.is_empty() && !file.contains([':', ' ']);
        match is_path && !is_there(&path) {
            true => format!("{REPOSITORY}/{}{anchor}", path.display()),
            false => link.to_owned(),
        }
    };
    let in_prose = |prose: &str| {
        let mut parts = prose.split("](");
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| match part.split_once(')') {
            Some((link, rest)) => format!("{text}]({}){rest}", change(link)),
            None => format!("{text}]({part}"),
        })
    };
    // Every second part is a block of code.
    let parts = text.split("```").enumerate();
    let parts = parts.map(|(index, part)| match index % 2 {
        0 => in_prose(part),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("```")
}

/// Resolves `..` by name.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_files_outside_the_package_lead_to_the_repository() {
        let text = "[a](../README.md#x) [b](../CONTRIBUTING.md#y) [c](z.md) [d](#e) [f](https://i.example)\n\
                    ```\nh[0](i)\n```\n[j](k.md)";
        let is_there = |path: &Path| ["README.md", "docs/z.md"].map(Path::new).contains(&path);
        let expected = text
            .replace(
                "../CONTRIBUTING.md",
                &format!("{REPOSITORY}/CONTRIBUTING.md"),
            )
            .replace("k.md", &format!("{REPOSITORY}/docs/k.md"));
        assert_eq!(changed(text, Path::new("docs"), is_there), expected);
    }
}
