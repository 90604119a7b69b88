//! Given events in a journal, the rows of the read models.

mod compared;
mod histories;
mod leases;
mod rows;
mod world;
