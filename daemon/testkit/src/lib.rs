//! Crate under construction in this commit series.
