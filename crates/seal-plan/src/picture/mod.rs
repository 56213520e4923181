//! Pictures as SVG: a machine with what runs where, and occupancy over time.
//!
//! The canvas is our own: what is needed is to know where every text lies, so that none covers
//! another, and an SVG writer does not tell.

mod canvas;
mod chart;
mod colours;
mod machine;

pub use canvas::{Area, Canvas};
pub use chart::draw_courses;
pub use machine::draw_machine;
