//! Every read model, once: its projector, its queries and its name follow from the list here.

use std::sync::Arc;

use crate::projector::Projector;
use crate::store::ReadModels;

/// `module: Queries, Projector;` with what it is for. The module has its `NAME`; both types are made of [`ReadModels`].
macro_rules! read_models {
    ($($(#[$comment:meta])* $module:ident: $Queries:ident, $Projector:ident;)*) => {
        /// The names of all read models, in the order in which they are listed to people.
        pub const NAMES: &[&str] = &[$(crate::$module::NAME),*];

        impl ReadModels {
            /// Every read model's projector, in the order of [`NAMES`].
            pub fn projectors(&self) -> Vec<Arc<dyn Projector>> {
                vec![$(Arc::new(crate::$module::$Projector::new(self))),*]
            }

            $(
                $(#[$comment])*
                pub fn $module(&self) -> crate::$module::$Queries<'_> {
                    crate::$module::$Queries::new(self)
                }
            )*
        }
    };
}

read_models! {
    /// Where a login finds its user.
    login_checks: LoginChecks, LoginChecksProjector;
    /// The users of an app.
    users: Users, UsersProjector;
    /// The sessions of a user.
    sessions: Sessions, SessionsProjector;
    /// Counts by time.
    stats: Stats, StatsProjector;
    /// Who did what, and when.
    audit_log: AuditLog, AuditLogProjector;
}
