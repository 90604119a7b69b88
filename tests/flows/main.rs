//! One file per flow, each against the real binary.

mod access_matrix;
mod admin_users;
mod api_keys;
mod apps;
mod audit;
mod command_line;
mod cookies;
mod default_app;
mod doctor;
mod end_sessions;
mod events_feed;
mod idempotency;
mod introspection;
mod jwks_and_discovery;
mod login;
mod logout;
mod malformed_requests;
mod me;
mod readiness;
mod refresh;
mod register;
mod root;
mod rotate_master_key;
mod sessions;
mod signing_keys;
mod stats;
