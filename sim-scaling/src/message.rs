//! Inert data: instances, decisions, activities.
