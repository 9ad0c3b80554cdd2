//! As much of a manifest as the rules need.
//!
//! Not a TOML parser: it knows sections, keys at the beginning of a line and the text of their values, which is
//! all that `cargo` manifests in this workspace use.

/// Why a package is depended on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    Build,
    Dev,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dependency {
    pub(crate) package: String,
    pub(crate) kind: Kind,
    /// Behind a feature: users who do not switch it on do not compile it.
    pub(crate) is_optional: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Manifest {
    /// `(section, key, value)` in the order of the file; the key as it is written, `a.workspace` included.
    entries: Vec<(String, String, String)>,
}

impl Manifest {
    pub(crate) fn parse(text: &str) -> Self {
        let mut manifest = Self::default();
        let mut section = String::new();
        for line in text.lines() {
            let line = line.trim();
            if line.starts_with('#') {
                continue;
            }
            if let Some(name) = line
                .strip_prefix('[')
                .and_then(|rest| rest.split(']').next())
                && !line.contains('=')
            {
                section = name.trim_start_matches('[').trim().to_owned();
            } else if let Some(name) = line.strip_prefix("[target.") {
                // `[target.'cfg(a = "b")'.dependencies]`
                section = format!("target.{}", name.trim_end_matches(']'));
            } else if let Some((key, value)) = line.split_once('=') {
                let key = key.trim().trim_matches('"');
                if !key.is_empty()
                    && key
                        .chars()
                        .all(|c| c.is_alphanumeric() || "-_.".contains(c))
                {
                    manifest.entries.push((
                        section.clone(),
                        key.to_owned(),
                        value.trim().to_owned(),
                    ));
                }
            } else if let Some((_, _, value)) = manifest.entries.last_mut() {
                // A list over several lines belongs to the key above it.
                value.push_str(line);
            }
        }
        manifest
    }

    /// The value of a key, without its quotation marks.
    pub(crate) fn value(&self, section: &str, key: &str) -> Option<&str> {
        self.entries
            .iter()
            .find(|(s, k, _)| s == section && k == key)
            .map(|(_, _, value)| match value.strip_prefix('"') {
                Some(rest) => rest.split('"').next().unwrap_or(rest),
                None => value,
            })
    }

    pub(crate) fn name(&self) -> &str {
        self.value("package", "name").unwrap_or_default()
    }

    /// The strings of a list.
    pub(crate) fn list(&self, section: &str, key: &str) -> Vec<&str> {
        self.value(section, key).map_or_else(Vec::new, |value| {
            value.split('"').skip(1).step_by(2).collect()
        })
    }

    /// Every package that this one depends on, for any target.
    pub(crate) fn dependencies(&self) -> Vec<Dependency> {
        let mut found = Vec::new();
        for (section, key, value) in &self.entries {
            let section = match section.strip_prefix("target.") {
                // A condition is quoted and may hold dots, a triple is bare and holds none.
                Some(rest) => rest
                    .rsplit_once("'.")
                    .or_else(|| rest.split_once('.'))
                    .map_or(rest, |(_, section)| section),
                None => section,
            };
            let (section, table) = match section.split_once('.') {
                Some((section, table)) => (section, Some(table)),
                None => (section, None),
            };
            let kind = match section {
                "dependencies" => Kind::Normal,
                "build-dependencies" => Kind::Build,
                "dev-dependencies" => Kind::Dev,
                _ => continue,
            };
            let renamed = match table {
                Some(_) => (key == "package").then(|| value.trim_matches('"')),
                None => value
                    .split_once("package")
                    .and_then(|(_, rest)| rest.trim_start().strip_prefix('='))
                    .and_then(|rest| rest.split('"').nth(1)),
            };
            let name = table.unwrap_or_else(|| key.split('.').next().unwrap_or(key));
            let is_optional = match table {
                Some(_) => key == "optional" && value == "true",
                None => value.replace(' ', "").contains("optional=true"),
            };
            for package in [Some(name), renamed].into_iter().flatten() {
                // A table names its package once for each of its keys.
                let same = |other: &&mut Dependency| other.package == package && other.kind == kind;
                match found.iter_mut().find(same) {
                    Some(known) => known.is_optional |= is_optional,
                    None => found.push(Dependency {
                        package: package.to_owned(),
                        kind,
                        is_optional,
                    }),
                }
            }
        }
        found
    }
}

#[test]
fn dependencies_are_found_in_every_form() {
    let manifest = Manifest::parse(
        r#"
        [package]
        name = "sim-thing" # comment
        [dependencies]
        a.workspace = true
        b = { version = "1", features = ["x"] }
        c = { package = "real-c", version = "1" }
        [dependencies.d]
        version = "1"
        optional = true
        [target.'cfg(loom)'.dependencies]
        e = { version = "1", optional = true }
        [target.'cfg(feature = "x.y")'.dev-dependencies]
        f = "1"
        [target.x86_64-unknown-linux-gnu.dependencies]
        i = "1"
        [build-dependencies]
        g = { version = "1", features = [
            "one",
        ] }
        [features]
        h = ["dep:a"]
        "#,
    );
    let found: Vec<_> = manifest
        .dependencies()
        .into_iter()
        .map(|d| (d.package, d.kind, d.is_optional))
        .collect();
    let expected = [
        ("a", Kind::Normal, false),
        ("b", Kind::Normal, false),
        ("c", Kind::Normal, false),
        ("real-c", Kind::Normal, false),
        ("d", Kind::Normal, true),
        ("e", Kind::Normal, true),
        ("f", Kind::Dev, false),
        ("i", Kind::Normal, false),
        ("g", Kind::Build, false),
    ];
    assert_eq!(
        found,
        expected.map(|(name, kind, optional)| (name.to_owned(), kind, optional))
    );
}
