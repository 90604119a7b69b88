//! What can be wrong with one member of a request: the `code` of each item of the list `errors` in a problem. An item can
//! also have the code of a problem.

use crate::problems::ProblemType;

/// What is wrong with a member, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldCode(&'static str);

impl FieldCode {
    /// The code in the response.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl From<&ProblemType> for FieldCode {
    fn from(problem: &ProblemType) -> Self {
        Self(problem.code)
    }
}

/// It breaks the rule that `detail` states.
pub const INVALID: FieldCode = FieldCode("invalid");

/// Malformed, or issued by another list.
pub const INVALID_CURSOR: FieldCode = FieldCode("invalid_cursor");

/// A value of another type, such as a number for a string.
pub const INVALID_TYPE: FieldCode = FieldCode("invalid_type");

/// Not a valid role name.
pub const INVALID_ROLE: FieldCode = FieldCode("invalid_role");

/// A member that must be given.
pub const MISSING: FieldCode = FieldCode("missing");

/// An offset together with a cursor.
pub const NOT_WITH_CURSOR: FieldCode = FieldCode("not_with_cursor");

/// A number or time that is too small or too large.
pub const OUT_OF_RANGE: FieldCode = FieldCode("out_of_range");

/// Something that this version cannot take.
pub const NOT_SUPPORTED: FieldCode = FieldCode("not_supported");

/// Given more than once.
pub const REPEATED: FieldCode = FieldCode("repeated");

/// A text with too many characters.
pub const TOO_LONG: FieldCode = FieldCode("too_long");

/// A text with too few characters.
pub const TOO_SHORT: FieldCode = FieldCode("too_short");

/// No app has this id.
pub const UNKNOWN_APP: FieldCode = FieldCode("unknown_app");

/// A member that the body may not have.
pub const UNKNOWN_MEMBER: FieldCode = FieldCode("unknown_member");

/// The app has no organization of this id.
pub const UNKNOWN_ORGANIZATION: FieldCode = FieldCode("unknown_organization");

/// A parameter that the query may not have.
pub const UNKNOWN_PARAMETER: FieldCode = FieldCode("unknown_parameter");

/// No event has this name.
pub const UNKNOWN_TYPE: FieldCode = FieldCode("unknown_type");
