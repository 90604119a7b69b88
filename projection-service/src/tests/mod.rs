//! The runner and the routes, on a real journal in a temporary directory.

mod queries;
mod running;
mod sharing;
mod world;
