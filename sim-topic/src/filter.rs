//! Filter policies: parsed once, matched without a document tree.
