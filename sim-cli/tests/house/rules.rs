//! The rules. Each is a function from the tree to the list of its violations.

use crate::manifest::Kind;
use crate::source::{Path, identifiers, paths};
use crate::tree::{Member, Tree};

/// The crate that everything stands on.
const CORE: &str = "sim-core";

/// Crates that may know several siblings. Every other crate with a library is a sibling.
const ABOVE: &[&str] = &[
    "sim-cli",
    "sim-aws",
    "sim-aws-sdk",
    "sim-wire",
    "benches",
    // The loom models of siblings' handles: a sibling's own tests need tokio, which loom's flag would rebuild.
    "models",
];

/// The one file that names the primitives.
const SYNC: &str = "sim-core/src/sync.rs";

/// The one unsafe file outside of the core: a counting allocator cannot be written otherwise. It is never
/// shipped, and it measures the memory that the others claim.
const COUNTING_ALLOCATOR: &str = "benches/src/alloc.rs";

/// Where the clocks are read.
const CLOCK: &str = "sim-core/src/clock";

/// Files that choose an ordering and need no model, each with the reason.
const UNMODELLED: &[(&str, &str)] = &[(
    "sim-core/src/clock/timeline.rs",
    "one word that only grows, stored under the lock that orders everything else",
)];

/// The most lines of code in a file of `src`, without its tests. Most hold 150 to 400.
const LONGEST_FILE: usize = 900;

/// Words of single domains, as they would stand in an identifier.
const DOMAIN_WORDS: &[&str] = &[
    "shard",
    "receipt",
    "topic",
    "sqs",
    "sns",
    "kinesis",
    "dead letter",
    "tenant",
];

/// Files that say nothing about what is in them.
const NAMELESS_FILES: &[&str] = &[
    "mod.rs",
    "prelude.rs",
    "util.rs",
    "utils.rs",
    "types.rs",
    "helpers.rs",
    "misc.rs",
];

/// What a sibling has besides the file of its handle.
const SIBLING_FILES: &[&str] = &[
    "README.md",
    "src/lib.rs",
    "src/config.rs",
    "src/error.rs",
    "src/machine.rs",
    "src/message.rs",
    "src/stats.rs",
    "tests/it/main.rs",
];

/// Wire formats and servers, by the name of the package or its beginning up to a `-`.
const WIRE_PACKAGES: &[&str] = &[
    "actix",
    "aws",
    "axum",
    "base64",
    "ciborium",
    "h2",
    "http",
    "hyper",
    "isahc",
    "prost",
    "quick-xml",
    "reqwest",
    "rustls",
    "serde_json",
    "simd-json",
    "sonic-rs",
    "tonic",
    "tower",
    "tungstenite",
    "ureq",
    "warp",
];

/// What a sibling takes of them all the same: the folder, the package, whether it may only stand behind a feature.
const WIRE_EXCEPTIONS: &[(&str, &str, Behind)] = &[
    // A filter policy is a JSON document, and so are the bodies that it looks into.
    ("sim-topic", "serde_json", Behind::Nothing),
    // Endpoints over HTTP(S), for topics alone and for who asks for them.
    ("sim-topic", "http", Behind::AFeature),
    ("sim-topic", "http-body-util", Behind::AFeature),
    ("sim-topic", "hyper", Behind::AFeature),
    ("sim-topic", "hyper-util", Behind::AFeature),
    ("sim-topic", "rustls", Behind::AFeature),
    ("sim-topic", "rustls-native-certs", Behind::AFeature),
    // A balancer of services, and a proxy: protocols are its trade, for who asks for them.
    // Cookies and tokens are text.
    ("sim-balancer", "base64", Behind::AFeature),
    ("sim-balancer", "http", Behind::AFeature),
    ("sim-balancer", "http-body", Behind::AFeature),
    ("sim-balancer", "http-body-util", Behind::AFeature),
    ("sim-balancer", "hyper", Behind::AFeature),
    ("sim-balancer", "hyper-util", Behind::AFeature),
    ("sim-balancer", "rustls", Behind::AFeature),
    ("sim-balancer", "rustls-native-certs", Behind::AFeature),
    ("sim-balancer", "serde_json", Behind::AFeature),
    ("sim-balancer", "tower", Behind::AFeature),
    ("sim-balancer", "tower-layer", Behind::AFeature),
    ("sim-balancer", "tower-service", Behind::AFeature),
    // The producer library's aggregated records are protobuf inside a record, not on a wire.
    ("sim-stream", "prost", Behind::AFeature),
];

/// Where an exception may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behind {
    Nothing,
    AFeature,
}

pub(crate) struct Rule {
    pub(crate) name: &'static str,
    pub(crate) check: fn(&Tree) -> Vec<String>,
}

pub(crate) const RULES: &[Rule] = &[
    Rule {
        name: "a folder is named as its crate",
        check: folders_are_named_as_crates,
    },
    Rule {
        name: "every crate takes the workspace's lints",
        check: lints_are_inherited,
    },
    Rule {
        name: "arrows point down",
        check: arrows_point_down,
    },
    Rule {
        name: "no wire format below sim-aws",
        check: no_wire_formats,
    },
    Rule {
        name: "only sim-core is unsafe",
        check: only_core_is_unsafe,
    },
    Rule {
        name: "only sim_core::sync names primitives",
        check: only_sync_names_primitives,
    },
    Rule {
        name: "only the clock reads the time",
        check: only_the_clock_reads_the_time,
    },
    Rule {
        name: "machines are pure",
        check: machines_are_pure,
    },
    Rule {
        name: "sim-core speaks of no domain",
        check: core_speaks_of_no_domain,
    },
    Rule {
        name: "every file has a telling name",
        check: files_have_telling_names,
    },
    Rule {
        name: "siblings are laid out alike",
        check: siblings_are_laid_out_alike,
    },
    Rule {
        name: "a crate's lib.rs holds no logic",
        check: lib_files_hold_no_logic,
    },
    Rule {
        name: "files can be read in one go",
        check: files_are_short,
    },
    Rule {
        name: "async operations say what a drop loses",
        check: async_operations_say_what_is_lost,
    },
    Rule {
        name: "orderings are argued",
        check: orderings_are_argued,
    },
    Rule {
        name: "lock-free files have models",
        check: lock_free_files_have_models,
    },
    Rule {
        name: "models are seen to fail",
        check: models_are_seen_to_fail,
    },
];

fn siblings(tree: &Tree) -> impl Iterator<Item = Member> {
    tree.members().into_iter().filter(|member| {
        member.folder != CORE
            && !ABOVE.contains(&member.folder.as_str())
            && tree.has(&format!("{}/src/lib.rs", member.folder))
    })
}

/// Whether the file is shipped code of a crate: not a test, a bench or an example.
fn is_source(path: &str) -> bool {
    let is_test = path.contains("/tests/") || path.ends_with("/tests.rs");
    path.split('/').nth(1) == Some("src") && !path.starts_with("benches/") && !is_test
}

fn is_core(path: &str) -> bool {
    path.starts_with("sim-core/src/")
}

fn folders_are_named_as_crates(tree: &Tree) -> Vec<String> {
    let workspace = tree
        .get("Cargo.toml")
        .map(crate::manifest::Manifest::parse)
        .unwrap_or_default();
    let listed = workspace.list("workspace", "members");
    let mut found = Vec::new();
    for member in tree.members() {
        let (folder, name) = (&member.folder, member.manifest.name());
        if folder.contains('/') {
            found.push(format!("{folder}: a crate stands at the root, flat"));
        } else if !listed.contains(&folder.as_str()) {
            found.push(format!("{folder}: not a member of the workspace"));
        }
        if folder.rsplit('/').next() != Some(name) {
            found.push(format!("{folder}: the crate in it is named {name}"));
        }
    }
    found
}

fn lints_are_inherited(tree: &Tree) -> Vec<String> {
    tree.members()
        .iter()
        .filter(|member| {
            member.manifest.value("lints", "workspace") != Some("true")
                && member.manifest.value("", "lints.workspace") != Some("true")
        })
        .map(|member| {
            format!(
                "{}/Cargo.toml: without `[lints] workspace = true`",
                member.folder
            )
        })
        .collect()
}

fn arrows_point_down(tree: &Tree) -> Vec<String> {
    let members = tree.members();
    let allowed = |from: &str, to: &str| match from {
        CORE => false,
        _ if ABOVE.contains(&from) => true,
        _ => to == CORE,
    };
    let mut found = Vec::new();
    for member in &members {
        let from = member.manifest.name();
        for dependency in member.manifest.dependencies() {
            let to = &dependency.package;
            if members.iter().any(|other| other.manifest.name() == to) && !allowed(from, to) {
                found.push(format!(
                    "{}/Cargo.toml: {from} depends on {to}; crates meet through the seams of sim-core",
                    member.folder
                ));
            }
        }
    }
    found
}

fn no_wire_formats(tree: &Tree) -> Vec<String> {
    let is_wire = |package: &str| {
        WIRE_PACKAGES.iter().any(|wire| {
            package
                .strip_prefix(wire)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        })
    };
    let is_excepted = |folder: &str, package: &str, is_optional: bool| {
        WIRE_EXCEPTIONS.iter().any(|(of, excepted, behind)| {
            *of == folder && *excepted == package && (is_optional || *behind == Behind::Nothing)
        })
    };
    tree.members()
        .iter()
        .filter(|member| !ABOVE.contains(&member.folder.as_str()))
        .flat_map(|member| {
            let folder = &member.folder;
            member
                .manifest
                .dependencies()
                .into_iter()
                .filter(|dependency| dependency.kind != Kind::Dev && is_wire(&dependency.package))
                .filter(|wire| !is_excepted(folder, &wire.package, wire.is_optional))
                .map(move |wire| format!("{folder}/Cargo.toml: depends on {}", wire.package))
        })
        .collect()
}

fn only_core_is_unsafe(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, source) in
        tree.rust(|path| !path.starts_with("sim-core/") && path != COUNTING_ALLOCATOR)
    {
        found.extend(
            identifiers(&source.code)
                .filter(|(_, word)| *word == "unsafe")
                .map(|(line, _)| format!("{path}:{line}: unsafe code outside sim-core")),
        );
        let is_root = path.ends_with("/src/lib.rs")
            || path.ends_with("/src/main.rs")
            || path.contains("/src/bin/");
        // `forbid` cannot be opened again further down, not even for the one file.
        let level = if path.starts_with("benches/") {
            "deny"
        } else {
            "forbid"
        };
        let code = squeezed(&source.code);
        if is_root
            && ![level, "forbid"]
                .iter()
                .any(|l| code.contains(&format!("#![{l}(unsafe_code)]")))
        {
            found.push(format!("{path}: without `#![{level}(unsafe_code)]`"));
        }
    }
    found
}

fn only_sync_names_primitives(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, source) in tree.rust(|path| is_source(path) && path != SYNC) {
        found.extend(
            paths(&source.shipped)
                .iter()
                .filter(|named| is_primitive(named))
                .map(|p| {
                    format!(
                        "{path}:{}: {} instead of sim_core::sync",
                        p.line,
                        p.joined()
                    )
                }),
        );
    }
    found
}

/// Whether loom would have to replace what the path names.
fn is_primitive(path: &Path) -> bool {
    let third = path.segments.get(2).map(String::as_str);
    match path.segments[0].as_str() {
        "loom" | "parking_lot" | "crossbeam_utils" => true,
        "std" | "core" => match path.segments[1].as_str() {
            // A question to the system, not a thread.
            "thread" => third != Some("available_parallelism"),
            "cell" => matches!(
                third,
                Some("UnsafeCell" | "SyncUnsafeCell" | "self" | "*") | None
            ),
            "sync" => matches!(
                third,
                Some("atomic" | "mpsc" | "Mutex" | "RwLock" | "Condvar" | "Barrier" | "Once" | "*")
            ),
            _ => false,
        },
        _ => false,
    }
}

fn only_the_clock_reads_the_time(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, source) in tree.rust(|path| is_source(path) && !path.starts_with(CLOCK)) {
        for named in paths(&source.shipped) {
            let segments: Vec<_> = named.segments.iter().map(String::as_str).collect();
            if let [
                ..,
                "Instant" | "SystemTime" | "UNIX_EPOCH",
                "now" | "elapsed",
            ] = segments[..]
            {
                found.push(format!(
                    "{path}:{}: {} instead of a Clock",
                    named.line,
                    named.joined()
                ));
            }
        }
    }
    found
}

fn machines_are_pure(tree: &Tree) -> Vec<String> {
    const IMPURE: &[(&str, &str)] = &[
        ("Clock", "now is an argument"),
        ("SystemTime", "now is an argument"),
        ("async", "a machine never waits"),
        ("await", "a machine never waits"),
        ("Event", "a machine wakes nobody"),
        ("Mutex", "a machine is entered by `&mut self`"),
        ("Ordering", "a machine is entered by `&mut self`"),
        ("thread_rng", "randomness is an argument"),
        (
            "RandomState",
            "the order of a hash map differs from run to run",
        ),
    ];
    let mut found = Vec::new();
    let is_machine = |path: &str| path.ends_with("/machine.rs") || path.contains("/machine/");
    for (path, source) in tree.rust(|path| is_source(path) && is_machine(path)) {
        found.extend(identifiers(&source.shipped).filter_map(|(line, word)| {
            let (_, reason) = IMPURE.iter().find(|(impure, _)| *impure == word)?;
            // `std::cmp::Ordering` is no atomic's.
            (word != "Ordering" || source.shipped.contains("Ordering::Relaxed"))
                .then(|| format!("{path}:{line}: {word}: {reason}"))
        }));
    }
    found
}

fn core_speaks_of_no_domain(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, source) in tree.rust(is_core) {
        for (index, line) in source.with_strings.lines().enumerate() {
            let spoken = words(line);
            found.extend(
                DOMAIN_WORDS
                    .iter()
                    .filter(|word| speaks_of(&spoken, word))
                    .map(|word| {
                        format!("{path}:{}: \"{word}\" is the word of one domain", index + 1)
                    }),
            );
        }
    }
    found
}

/// The words of a line in lower case: `DeadLetter`, `dead_letter` and "dead letter" are two words each.
fn words(line: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut previous = ' ';
    for c in line.chars() {
        let begins = !c.is_alphanumeric() || (c.is_uppercase() && previous.is_lowercase());
        if begins {
            found.push(String::new());
        }
        if c.is_alphanumeric()
            && let Some(word) = found.last_mut()
        {
            word.extend(c.to_lowercase());
        }
        previous = c;
    }
    found.retain(|word| !word.is_empty());
    found
}

fn speaks_of(spoken: &[String], domain: &str) -> bool {
    let wanted: Vec<&str> = domain.split(' ').collect();
    // "shards" and "sharded" are "shard", but three letters begin many a word.
    let same = |word: &String, wanted: &&str| {
        if wanted.len() > 3 {
            word.starts_with(*wanted)
        } else {
            word == wanted
        }
    };
    spoken
        .windows(wanted.len())
        .any(|window| window.iter().zip(&wanted).all(|(a, b)| same(a, b)))
}

fn files_have_telling_names(tree: &Tree) -> Vec<String> {
    tree.paths()
        .filter(|path| {
            path.rsplit('/')
                .next()
                .is_some_and(|file| NAMELESS_FILES.contains(&file))
        })
        .map(|path| format!("{path}: named for its place, not for what is in it"))
        .collect()
}

fn siblings_are_laid_out_alike(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for sibling in siblings(tree) {
        let folder = &sibling.folder;
        let Some(noun) = folder.strip_prefix("sim-") else {
            found.push(format!("{folder}: a sibling is named sim-NOUN"));
            continue;
        };
        let handle = format!("src/{noun}.rs");
        for file in SIBLING_FILES.iter().copied().chain([handle.as_str()]) {
            if !tree.has(&format!("{folder}/{file}")) {
                found.push(format!("{folder}: without {file}"));
            }
        }
        if !tree
            .paths()
            .any(|path| path.starts_with(&format!("{folder}/examples/")))
        {
            found.push(format!("{folder}: without an example"));
        }
    }
    found
}

fn lib_files_hold_no_logic(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for member in siblings(tree).map(|m| m.folder).chain([CORE.to_owned()]) {
        let lib = format!("{member}/src/lib.rs");
        for (path, source) in tree.rust(|path| path == lib) {
            found.extend(
                identifiers(&source.shipped)
                    .filter(|(_, word)| matches!(*word, "fn" | "impl" | "macro_rules"))
                    .map(|(line, word)| format!("{path}:{line}: `{word}` in lib.rs")),
            );
        }
    }
    found
}

fn files_are_short(tree: &Tree) -> Vec<String> {
    tree.rust(is_source)
        .filter_map(|(path, source)| {
            let lines = source
                .shipped
                .lines()
                .filter(|line| !line.trim().is_empty())
                .count();
            (lines > LONGEST_FILE)
                .then(|| format!("{path}: {lines} lines of code, the most is {LONGEST_FILE}"))
        })
        .collect()
}

fn async_operations_say_what_is_lost(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, source) in tree.rust(|path| is_source(path) && !path.starts_with("sim-cli/")) {
        let text: Vec<_> = source.text.lines().map(str::trim_start).collect();
        for (index, line) in source.shipped.lines().enumerate() {
            let line = line.trim_start();
            let is_async = line.starts_with("pub async fn")
                || (line.starts_with("pub fn") && line.contains("impl Future"));
            // The lines of documentation and attributes right above.
            let mut above = text[..index].iter().rev().take_while(|line| {
                line.starts_with("///") || line.starts_with('#') || line.starts_with(')')
            });
            if is_async && !above.any(|line| line.starts_with("/// # Cancel safety")) {
                found.push(format!(
                    "{path}:{}: without a section \"# Cancel safety\"",
                    index + 1
                ));
            }
        }
    }
    found
}

/// Whether the file chooses the ordering of an atomic access.
fn chooses_orderings(source: &crate::source::Source) -> bool {
    ["Acquire", "Release", "AcqRel", "SeqCst"]
        .iter()
        .any(|ordering| source.names(ordering))
}

fn orderings_are_argued(tree: &Tree) -> Vec<String> {
    let argues = |path: &str| {
        tree.get(path)
            .unwrap_or_default()
            .lines()
            .map(str::trim_start)
            .any(|line| {
                ["//! # Ordering", "/// # Ordering"]
                    .iter()
                    .any(|heading| line.starts_with(heading))
            })
    };
    tree.rust(|path| is_source(path) && path != SYNC)
        .filter(|(_, source)| chooses_orderings(source))
        .filter(|(path, _)| {
            // The parts of a structure may leave the argument to the file above them, or it to a part.
            let above = path
                .rsplit_once('/')
                .map(|(folder, _)| format!("{folder}.rs"));
            let below = path
                .strip_suffix("rs")
                .map(|stem| format!("{}/", stem.trim_end_matches('.')));
            let in_a_part = below.is_some_and(|b| {
                tree.paths()
                    .any(|part| part.starts_with(&b) && argues(part))
            });
            !(argues(path) || above.is_some_and(|above| argues(&above)) || in_a_part)
        })
        .map(|(path, _)| format!("{path}: chooses orderings without a section \"# Ordering\""))
        .collect()
}

fn lock_free_files_have_models(tree: &Tree) -> Vec<String> {
    let is_unmodelled = |path: &str| UNMODELLED.iter().any(|(file, _)| *file == path);
    tree.rust(|path| is_core(path) && path != SYNC && !is_unmodelled(path))
        .filter(|(_, source)| chooses_orderings(source))
        .filter_map(|(path, _)| {
            // `ring/bounded.rs` may be modelled in `loom_ring.rs` or in a file of its own.
            let module = path.strip_prefix("sim-core/src/")?.strip_suffix(".rs")?;
            let modelled = module.split('/').any(|part| {
                tree.paths().any(|test| {
                    test.strip_prefix("sim-core/tests/loom_")
                        .and_then(|rest| rest.strip_suffix(".rs"))
                        .is_some_and(|rest| rest == part || rest.starts_with(&format!("{part}_")))
                })
            });
            (!modelled).then(|| {
                format!(
                    "{path}: without sim-core/tests/loom_{}.rs",
                    module.replace('/', "_")
                )
            })
        })
        .collect()
}

fn models_are_seen_to_fail(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, source) in tree.rust(|path| path.contains("/tests/loom_")) {
        if !squeezed(&source.code).contains("#![cfg(loom)]") {
            found.push(format!("{path}: without `#![cfg(loom)]`"));
        }
        // A heading, then a table: a head, a rule and at least one mutation.
        let comments: Vec<_> = source
            .text
            .lines()
            .map(str::trim_start)
            .filter_map(|line| line.strip_prefix("//!").or_else(|| line.strip_prefix("//")))
            .map(str::trim)
            .collect();
        let table = comments
            .iter()
            .position(|line| line.starts_with('#') && line.to_lowercase().contains("mutation"))
            .map_or(0, |at| {
                comments[at..]
                    .iter()
                    .filter(|line| line.starts_with('|'))
                    .count()
            });
        if table < 3 {
            found.push(format!(
                "{path}: without a table of mutations under a heading of that name"
            ));
        }
        // A model that explores one interleaving passes whatever the orderings are.
        let words: Vec<_> = identifiers(&source.code)
            .map(|(_, word)| word.to_lowercase())
            .collect();
        let floor = words.iter().any(|word| {
            ["floor", "interleavings", "executions", "explored"]
                .iter()
                .any(|w| word.contains(w))
        });
        if !floor {
            found.push(format!(
                "{path}: without a floor on the interleavings explored"
            ));
        }
    }
    found
}

/// The text without white space, to find an attribute however it is written.
fn squeezed(code: &str) -> String {
    code.split_whitespace().collect()
}
