//! The house rules that a tool can check, checked on every run of the tests.
//!
//! `CONTRIBUTING.md` gives the reason for each rule. [`rules::RULES`] is the list; each rule is a function
//! from the workspace's files to what is wrong with them, and each has a test in `seeded.rs` that seeds a
//! violation and sees it found, since a checker that finds nothing looks the same as a clean house.

#![forbid(unsafe_code)]

mod manifest;
mod rules;
mod seeded;
mod source;
mod tree;

use std::path::Path;

use rules::RULES;
use tree::Tree;

#[test]
fn the_house_keeps_its_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let tree = Tree::load(&root).expect("the workspace can be read");
    let found: Vec<String> = RULES
        .iter()
        .flat_map(|rule| {
            (rule.check)(&tree)
                .into_iter()
                .map(|v| format!("[{}] {v}", rule.name))
        })
        .collect();
    assert!(
        found.is_empty(),
        "{} violations of the house rules (reasons in CONTRIBUTING.md):\n{}",
        found.len(),
        found.join("\n")
    );
}
