//! What follows from the list of read models at the end of `lib.rs`: their projectors, their queries and their names.

/// Declares them: `module: Queries, Projector;` with what it is for. The module has its `NAME`; both types are made of [`crate::ReadModels`].
macro_rules! read_models {
    ($($(#[$comment:meta])* $module:ident: $Queries:ident, $Projector:ident;)*) => {
        /// The names of all read models, in the order in which they are listed to people.
        pub const NAMES: &[&str] = &[$($crate::$module::NAME),*];

        impl $crate::ReadModels {
            /// Every read model's projector, in the order of [`NAMES`].
            pub fn projectors(&self) -> Vec<std::sync::Arc<dyn $crate::Projector>> {
                vec![$(std::sync::Arc::new($crate::$module::$Projector::new(self))),*]
            }

            $(
                $(#[$comment])*
                pub fn $module(&self) -> $crate::$module::$Queries<'_> {
                    $crate::$module::$Queries::new(self)
                }
            )*
        }
    };
}
pub(crate) use read_models;
