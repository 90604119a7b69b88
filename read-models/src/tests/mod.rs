//! Given events in a journal, the rows of the read models.

mod histories;
mod rows;
mod world;
