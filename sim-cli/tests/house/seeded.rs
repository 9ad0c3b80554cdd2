//! Each rule is seen to find a violation that is seeded into a small clean house.

#![cfg(test)]

use crate::rules::{RULES, Rule};
use crate::tree::Tree;

const MEMBER: &str = "[dependencies]\nsim-core.workspace = true\n[lints]\nworkspace = true\n";

/// A house in which every rule is kept.
fn clean() -> Tree {
    let mut tree = Tree::default();
    let package = |name: &str| format!("[package]\nname = \"{name}\"\n{MEMBER}");
    let forbid = "#![forbid(unsafe_code)]\npub mod queue;\n";
    for (path, text) in [
        (
            "Cargo.toml",
            "[workspace]\nmembers = [\n  \"sim-core\",\n  \"sim-queue\", \"sim-cli\", \"benches\"]\n",
        ),
        (
            "sim-core/Cargo.toml",
            "[package]\nname = \"sim-core\"\n[lints]\nworkspace = true\n",
        ),
        (
            "sim-core/src/lib.rs",
            "//! A receipt may be spoken of in prose.\npub mod ring;\n",
        ),
        (
            "sim-core/src/sync.rs",
            "pub use std::sync::atomic;\npub use std::thread;\n",
        ),
        (
            "sim-core/src/clock/system.rs",
            "fn now() { std::time::Instant::now(); }\n",
        ),
        (
            "sim-core/src/ring.rs",
            "//! # Ordering\n//! None.\nuse crate::sync::atomic::Ordering;\nfn f() { unsafe { x(Ordering::SeqCst) } }\n",
        ),
        (
            "sim-core/tests/loom_ring.rs",
            "//! # Mutations\n//! | a | b |\n//! |---|---|\n//! | c | d |\n#![cfg(loom)]\nfn f() { floor(2); }\n",
        ),
        ("sim-queue/Cargo.toml", &package("sim-queue")),
        ("sim-queue/README.md", ""),
        ("sim-queue/src/lib.rs", forbid),
        ("sim-queue/src/queue.rs", "use std::sync::Arc;\n"),
        ("sim-queue/src/config.rs", ""),
        ("sim-queue/src/error.rs", ""),
        (
            "sim-queue/src/machine.rs",
            "use std::cmp::Ordering;\nfn f(now: Instant) {}\n",
        ),
        (
            "sim-queue/src/machine/tests/model.rs",
            "use std::thread;\nfn f(o: Ordering::SeqCst, c: Clock) {}\n",
        ),
        ("sim-queue/src/message.rs", ""),
        ("sim-queue/src/stats.rs", ""),
        ("sim-queue/tests/it/main.rs", "use std::thread;\n"),
        ("sim-queue/examples/work.rs", ""),
        (
            "sim-cli/Cargo.toml",
            &format!("{}serde_json = \"1\"\n", package("sim-cli")),
        ),
        ("sim-cli/src/main.rs", forbid),
        ("benches/Cargo.toml", &package("benches")),
        (
            "benches/src/main.rs",
            "#![forbid(unsafe_code)]\nuse std::thread;\n",
        ),
    ] {
        tree.put(path, text);
    }
    tree
}

fn rule(name: &str) -> &'static Rule {
    RULES
        .iter()
        .find(|rule| rule.name == name)
        .expect("the rule exists")
}

/// Asserts that the rule finds one violation, which names `place`, after `seed` changed the clean house.
#[track_caller]
fn finds(name: &str, place: &str, seed: impl FnOnce(&mut Tree)) {
    let mut tree = clean();
    seed(&mut tree);
    let found = (rule(name).check)(&tree);
    assert_eq!(
        found.len(),
        1,
        "one violation was seeded, found: {found:#?}"
    );
    assert!(
        found[0].starts_with(place),
        "found it elsewhere: {}",
        found[0]
    );
}

/// Puts a file in place of what is there.
fn put(path: &'static str, text: &'static str) -> impl FnOnce(&mut Tree) {
    move |tree| tree.put(path, text)
}

/// Adds lines at the end of a file.
fn add(path: &'static str, text: &'static str) -> impl FnOnce(&mut Tree) {
    move |tree| {
        let whole = format!("{}{text}", tree.get(path).unwrap_or_default());
        tree.put(path, &whole);
    }
}

fn without(path: &'static str) -> impl FnOnce(&mut Tree) {
    move |tree| tree.remove(path)
}

#[test]
fn a_clean_house_is_found_clean() {
    for rule in RULES {
        assert_eq!(
            (rule.check)(&clean()),
            Vec::<String>::new(),
            "{}",
            rule.name
        );
    }
}

#[test]
fn a_folder_under_another_name_is_found() {
    let name = "a folder is named as its crate";
    finds(name, "sim-cli: the crate", |tree| {
        put(
            "sim-cli/Cargo.toml",
            "[package]\nname = \"sim\"\n[lints]\nworkspace = true\n",
        )(tree);
    });
    finds(name, "sim-extra: not a member", |tree| {
        put("sim-extra/Cargo.toml", "[package]\nname = \"sim-extra\"\n")(tree);
    });
    finds(name, "crates/sim-extra: a crate stands", |tree| {
        put(
            "crates/sim-extra/Cargo.toml",
            "[package]\nname = \"sim-extra\"\n",
        )(tree);
    });
}

#[test]
fn a_crate_with_its_own_lints_is_found() {
    let own = "[package]\nname = \"benches\"\n[lints.rust]\nmissing_docs = \"allow\"\n";
    finds(
        "every crate takes the workspace's lints",
        "benches/Cargo.toml",
        |tree| {
            tree.put("benches/Cargo.toml", own);
        },
    );
}

#[test]
fn an_edge_that_does_not_point_down_is_found() {
    let name = "arrows point down";
    let topic = |kind: &str| {
        format!("[package]\nname = \"sim-topic\"\n[{kind}]\nsim-queue.workspace = true\n{MEMBER}")
    };
    for kind in [
        "dependencies",
        "dev-dependencies",
        "target.'cfg(unix)'.build-dependencies",
    ] {
        finds(
            name,
            "sim-topic/Cargo.toml: sim-topic depends on sim-queue",
            |tree| {
                tree.put("sim-topic/Cargo.toml", &topic(kind));
            },
        );
    }
    finds(
        name,
        "sim-core/Cargo.toml: sim-core depends on sim-queue",
        add(
            "sim-core/Cargo.toml",
            "[dev-dependencies.queue]\npackage = \"sim-queue\"\n",
        ),
    );
}

#[test]
fn a_wire_format_in_a_sibling_is_found() {
    let name = "no wire format below sim-aws";
    for package in ["serde_json", "hyper-util", "aws-sdk-sqs"] {
        finds(name, "sim-queue/Cargo.toml", |tree| {
            let text =
                format!("[dependencies]\n{package} = {{ version = \"1\", optional = true }}\n");
            let whole = format!(
                "{}{text}",
                tree.get("sim-queue/Cargo.toml").unwrap_or_default()
            );
            tree.put("sim-queue/Cargo.toml", &whole);
        });
    }
    let mut tree = clean();
    add(
        "sim-queue/Cargo.toml",
        "[dev-dependencies]\nserde_json = \"1\"\n",
    )(&mut tree);
    assert!((rule(name).check)(&tree).is_empty(), "a test may use it");
}

#[test]
fn a_wire_format_that_is_excepted_stays_behind_its_feature() {
    let name = "no wire format below sim-aws";
    let topic = |dependency: &str| {
        let package = format!("[package]\nname = \"sim-topic\"\n[dependencies]\n{dependency}\n");
        let mut tree = clean();
        tree.put("sim-topic/Cargo.toml", &package);
        (rule(name).check)(&tree)
    };
    assert_eq!(
        topic("hyper = { version = \"1\", optional = true }"),
        [""; 0]
    );
    assert_eq!(topic("serde_json.workspace = true"), [""; 0]);
    for dependency in [
        "hyper = \"1\"",
        "tonic = { version = \"1\", optional = true }",
    ] {
        assert_eq!(topic(dependency).len(), 1, "{dependency}");
    }
}

#[test]
fn unsafe_code_outside_the_core_is_found() {
    let name = "only sim-core is unsafe";
    finds(
        name,
        "sim-queue/src/queue.rs:1",
        put("sim-queue/src/queue.rs", "unsafe fn f() {}\n"),
    );
    finds(
        name,
        "sim-queue/tests/it/main.rs:2",
        add("sim-queue/tests/it/main.rs", "unsafe { f() }"),
    );
    finds(
        name,
        "sim-queue/src/lib.rs",
        put("sim-queue/src/lib.rs", "// #![forbid(unsafe_code)]\n"),
    );
    finds(
        name,
        "sim-cli/src/main.rs",
        put("sim-cli/src/main.rs", "#![deny(unsafe_code)]\n"),
    );
    finds(
        name,
        "benches/src/rivals.rs:1",
        put("benches/src/rivals.rs", "unsafe fn f() {}\n"),
    );
    finds(
        name,
        "benches/src/lib.rs",
        put("benches/src/lib.rs", "pub mod alloc;\n"),
    );
    let mut tree = clean();
    put("benches/src/alloc.rs", "unsafe fn f() {}\n")(&mut tree);
    put("benches/src/lib.rs", "#![deny(unsafe_code)]\n")(&mut tree);
    assert!(
        (rule(name).check)(&tree).is_empty(),
        "the counting allocator may"
    );
    finds(
        name,
        "sim-cli/src/bin/other.rs",
        put("sim-cli/src/bin/other.rs", "fn main() {}\n"),
    );
}

#[test]
fn a_primitive_outside_sync_is_found() {
    let name = "only sim_core::sync names primitives";
    for text in [
        "use std::sync::atomic::AtomicU64;",
        "use std::{sync::{atomic, Arc}, fmt};",
        "fn f() { std::thread::yield_now(); }",
        "use core::cell::UnsafeCell;",
        "use std::sync::*;",
        "use std::sync::Mutex as Lock;",
        "use parking_lot::Mutex;",
        "use loom::sync::Arc;",
    ] {
        for file in [
            "sim-core/src/payload.rs",
            "sim-queue/src/queue.rs",
            "sim-cli/src/demo/run.rs",
        ] {
            finds(name, &format!("{file}:1"), |tree| tree.put(file, text));
        }
    }
    for text in [
        "use std::sync::{Arc, OnceLock}; use std::cell::Cell;",
        "use sim_core::sync::{UnsafeCell, thread, atomic::AtomicU64};",
        "fn f() { std::thread::available_parallelism(); }",
        "#[cfg(test)]\nmod tests {\n    use std::thread;\n}\n",
        "//! std::thread::spawn is not called.",
    ] {
        let mut tree = clean();
        tree.put("sim-core/src/payload.rs", text);
        assert_eq!((rule(name).check)(&tree), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn a_clock_read_elsewhere_is_found() {
    let name = "only the clock reads the time";
    let file = "sim-queue/src/queue.rs";
    finds(
        name,
        file,
        put(file, "fn f() { std::time::Instant::now(); }"),
    );
    finds(
        name,
        file,
        put(
            file,
            "use std::time::SystemTime;\nfn f() { SystemTime::now(); }",
        ),
    );
}

#[test]
fn an_impure_machine_is_found() {
    let name = "machines are pure";
    let file = "sim-queue/src/machine.rs";
    finds(name, file, put(file, "fn f(clock: &Clock) {}"));
    finds(name, file, put(file, "async fn f() {}"));
    finds(
        name,
        "sim-queue/src/machine/groups.rs:2",
        put(
            "sim-queue/src/machine/groups.rs",
            "// Clock\nfn f(m: &Mutex<u8>) {}",
        ),
    );
    finds(
        name,
        file,
        put(file, "fn f() { a.load(Ordering::Relaxed) }"),
    );
}

#[test]
fn a_word_of_one_domain_in_the_core_is_found() {
    let name = "sim-core speaks of no domain";
    let file = "sim-core/src/slab.rs";
    for text in [
        "struct Receipt;",
        "fn sharded() {}",
        "const MAX_SQS_BYTES: usize = 1;",
        "struct DeadLetter;",
        "fn dead_letters() {}",
        "fn f() -> &'static str { \"no such topic\" }",
        "struct Fair { by_tenant: u8 }",
    ] {
        finds(name, &format!("{file}:1"), |tree| tree.put(file, text));
    }
    let mut tree = clean();
    tree.put(
        file,
        "fn answers(dead: u8, queue: u8) { topical() }"
            .replace("topical", "logical")
            .as_str(),
    );
    assert!((rule(name).check)(&tree).is_empty());
}

#[test]
fn a_file_named_for_its_place_is_found() {
    let name = "every file has a telling name";
    for file in [
        "sim-core/src/ring/mod.rs",
        "sim-queue/src/prelude.rs",
        "sim-cli/src/utils.rs",
    ] {
        finds(name, file, |tree| tree.put(file, ""));
    }
}

#[test]
fn a_sibling_laid_out_otherwise_is_found() {
    let name = "siblings are laid out alike";
    for file in [
        "README.md",
        "src/config.rs",
        "src/machine.rs",
        "src/queue.rs",
        "tests/it/main.rs",
    ] {
        finds(name, &format!("sim-queue: without {file}"), |tree| {
            tree.remove(&format!("sim-queue/{file}"));
        });
    }
    finds(
        name,
        "sim-queue: without an example",
        without("sim-queue/examples/work.rs"),
    );
}

#[test]
fn logic_in_a_lib_file_is_found() {
    let name = "a crate's lib.rs holds no logic";
    for file in ["sim-queue/src/lib.rs", "sim-core/src/lib.rs"] {
        finds(name, file, |tree| tree.put(file, "pub fn f() {}\n"));
    }
}

#[test]
fn a_file_that_is_too_long_is_found() {
    let name = "files can be read in one go";
    let file = "sim-core/src/slab.rs";
    finds(name, file, |tree| tree.put(file, &"f();\n".repeat(901)));
    let mut tree = clean();
    let long = format!("{}{}", "f();\n\n".repeat(900), "// why\n".repeat(900));
    tree.put(
        file,
        &format!(
            "{long}#[cfg(test)]\nmod tests {{\n{}}}\n",
            "f();\n".repeat(900)
        ),
    );
    assert!(
        (rule(name).check)(&tree).is_empty(),
        "comments and tests do not count"
    );
}

#[test]
fn an_async_operation_that_keeps_quiet_about_cancelling_is_found() {
    let name = "async operations say what a drop loses";
    let file = "sim-queue/src/queue.rs";
    finds(
        name,
        "sim-queue/src/queue.rs:2",
        put(file, "/// Receives.\npub async fn receive() {}\n"),
    );
    finds(
        name,
        file,
        put(file, "pub fn receive() -> impl Future<Output = u8> {}\n"),
    );
    let mut tree = clean();
    let told = "/// Receives.\n///\n/// # Cancel safety\n/// Nothing.\n#[must_use]\n";
    tree.put(
        file,
        &format!("{told}pub async fn receive() {{}}\nasync fn private() {{}}\n"),
    );
    assert!((rule(name).check)(&tree).is_empty());
}

#[test]
fn an_ordering_without_its_argument_is_found() {
    let name = "orderings are argued";
    let code = "use crate::sync::atomic::Ordering::SeqCst;\nfn f() { a.load(SeqCst); }\n";
    finds(
        name,
        "sim-core/src/ring.rs",
        put("sim-core/src/ring.rs", code),
    );
    finds(
        name,
        "sim-queue/src/queue.rs",
        put("sim-queue/src/queue.rs", code),
    );
}

#[test]
fn a_lock_free_file_without_a_model_is_found() {
    let name = "lock-free files have models";
    let code = "fn f() { a.load(Ordering::Acquire); }\n";
    finds(
        name,
        "sim-core/src/slab.rs",
        put("sim-core/src/slab.rs", code),
    );
    finds(
        name,
        "sim-core/src/ring.rs",
        without("sim-core/tests/loom_ring.rs"),
    );
    let mut tree = clean();
    tree.put("sim-core/src/ring/bounded.rs", code);
    assert!(
        (rule(name).check)(&tree).is_empty(),
        "a part is modelled with the whole"
    );
}

#[test]
fn a_model_that_was_not_seen_to_fail_is_found() {
    let name = "models are seen to fail";
    let file = "sim-core/tests/loom_ring.rs";
    let table = "//! # Mutations\n//! | a | b |\n//! |---|---|\n//! | c | d |\n";
    finds(name, file, |tree| {
        tree.put(file, &format!("{table}fn f() {{ floor(2); }}"))
    });
    finds(
        name,
        file,
        put(
            file,
            "//! # Mutations\n//! None.\n#![cfg(loom)]\nfn f() { floor(2); }",
        ),
    );
    finds(name, file, |tree| {
        tree.put(
            file,
            &format!("{table}#![cfg(loom)]\n// a floor\nfn f() {{}}"),
        )
    });
}

#[test]
fn a_tree_is_loaded_from_its_folder() {
    let root = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("house");
    for folder in ["a/src", "target/debug", ".git"] {
        std::fs::create_dir_all(root.join(folder)).expect("a scratch folder");
    }
    for file in [
        "a/src/lib.rs",
        "a/Cargo.toml",
        "target/debug/b.rs",
        ".git/c.md",
        "a/d.bin",
    ] {
        std::fs::write(root.join(file), "x").expect("a scratch file");
    }
    let tree = Tree::load(&root).expect("the scratch folder can be read");
    assert_eq!(
        tree.paths().collect::<Vec<_>>(),
        ["a/Cargo.toml", "a/src/lib.rs"]
    );
    std::fs::remove_dir_all(&root).expect("the scratch folder can be removed");
}
