//! The workspace as a map from path to text.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use crate::manifest::Manifest;
use crate::source::Source;

/// The files that rules look at, by their path from the root, with `/` between the parts.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tree {
    files: BTreeMap<String, String>,
}

/// A member of the workspace.
#[derive(Debug)]
pub(crate) struct Member {
    /// The folder from the root.
    pub(crate) folder: String,
    pub(crate) manifest: Manifest,
}

impl Tree {
    /// Reads every `.rs`, `.toml` and `.md` file below `root`, except for hidden and target directories.
    pub(crate) fn load(root: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        tree.walk(root, "")?;
        Ok(tree)
    }

    fn walk(&mut self, directory: &Path, prefix: &str) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            let path = format!("{prefix}{name}");
            if kind.is_dir() {
                if !name.starts_with('.') && !name.starts_with("target") {
                    self.walk(&entry.path(), &format!("{path}/"))?;
                }
            } else if kind.is_file()
                && [".rs", ".toml", ".md"]
                    .iter()
                    .any(|end| name.ends_with(end))
            {
                self.files.insert(path, fs::read_to_string(entry.path())?);
            }
        }
        Ok(())
    }

    /// Adds a file or replaces it.
    pub(crate) fn put(&mut self, path: &str, text: &str) {
        self.files.insert(path.to_owned(), text.to_owned());
    }

    /// Takes a file away.
    pub(crate) fn remove(&mut self, path: &str) {
        assert!(
            self.files.remove(path).is_some(),
            "{path} is not in the tree"
        );
    }

    pub(crate) fn get(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The Rust files whose path satisfies `wanted`, scanned.
    pub(crate) fn rust(
        &self,
        wanted: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = (&str, Source)> {
        self.files
            .iter()
            .filter(move |(path, _)| path.ends_with(".rs") && wanted(path))
            .map(|(path, text)| (path.as_str(), Source::scan(text)))
    }

    /// Every folder at the root with a manifest.
    pub(crate) fn members(&self) -> Vec<Member> {
        self.files
            .iter()
            .filter_map(|(path, text)| {
                let folder = path.strip_suffix("/Cargo.toml")?;
                Some(Member {
                    folder: folder.to_owned(),
                    manifest: Manifest::parse(text),
                })
            })
            .collect()
    }
}
