//! Several refusals as one, so that a client learns of everything at once.

use schemas::problems;

use super::{MAX_ERRORS, Problem};

impl Problem {
    /// Says that more is wrong than is listed.
    pub(crate) fn cut(self) -> Self {
        let detail = format!("{}; and more, which is not listed", self.text());
        self.detail(detail)
    }

    /// Both refusals as one that names the members of both. Unless both are about members, it is the first.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        if self.errors.is_empty() || other.errors.is_empty() {
            return self;
        }
        if self.kind != other.kind {
            let is_shape = [self.kind, other.kind].contains(&problems::MALFORMED_REQUEST);
            self.kind = if is_shape { problems::MALFORMED_REQUEST } else { problems::VALIDATION_FAILED };
        }
        self.detail = None;
        self.members.extend(other.members);
        self.errors.extend(other.errors);
        if self.errors.len() > MAX_ERRORS {
            self.errors.truncate(MAX_ERRORS);
            return self.cut();
        }
        self
    }
}

/// Both values, or one refusal that names the wrong members of both.
///
/// ```
/// # use http_kit::{Problem, problem::both};
/// # use schemas::field_codes;
/// # let (email, name) = (Ok::<_, Problem>("ada@example.com"), Ok("Ada"));
/// let (email, name) = both(email, name)?;
/// # Ok::<_, Problem>(())
/// ```
pub fn both<A, B>(first: Result<A, Problem>, second: Result<B, Problem>) -> Result<(A, B), Problem> {
    match (first, second) {
        (Ok(first), Ok(second)) => Ok((first, second)),
        (Err(first), Err(second)) => Err(first.and(second)),
        (Err(problem), Ok(_)) | (Ok(_), Err(problem)) => Err(problem),
    }
}

/// All values, or one refusal that names the wrong members of all.
pub fn each<T, C: Default + Extend<T>>(
    results: impl IntoIterator<Item = Result<T, Problem>>,
) -> Result<C, Problem> {
    let mut values = C::default();
    let mut refusal: Option<Problem> = None;
    for result in results {
        match result {
            Ok(value) => values.extend([value]),
            Err(problem) => {
                refusal = Some(match refusal {
                    Some(first) => first.and(problem),
                    None => problem,
                });
            }
        }
    }
    refusal.map_or(Ok(values), Err)
}
