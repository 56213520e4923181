//! Tests over whole sectors: the reference vectors, and PC2 in the face of faults.

mod backend;
mod gpu;
mod pc2;
mod run;
mod space;
mod support;
mod two_sectors;
mod vectors;
mod wrong_device;
