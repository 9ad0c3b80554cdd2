//! Models of the siblings' handles under loom. All of it stands in `tests/`; `ci/loom` runs it.

#![forbid(unsafe_code)]
