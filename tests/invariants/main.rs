//! The invariants that hold whatever happens, as far as a client can see them. Their letters are those of
//! ARCHITECTURE.md. What needs the internals of a crate is tested in that crate.

mod credentials;
mod durability;
mod histories;
mod projections;
mod secrets;
