//! Pages of lists that fit into one aggregate.

use http_kit::Page;
use http_kit::problem::{Problem, both};
use schemas::field_codes;
use serde::Deserialize;
use utoipa::IntoParams;

const DEFAULT_LIMIT: i64 = 20;
const MAX_LIMIT: i64 = 200;
const MAX_OFFSET: usize = 10_000;

/// Which page of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PageParams {
    /// The maximum number of items: 1 to 200, 20 if absent.
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<i64>,
    /// How many items to skip: at most 10 000.
    #[param(minimum = 0, maximum = 10000)]
    pub offset: Option<i64>,
    /// The `next_cursor` of the previous page, instead of an offset.
    pub cursor: Option<String>,
}

impl PageParams {
    /// Cuts the page out of the whole list.
    pub fn of<T>(&self, all: Vec<T>) -> Result<Page<T>, Problem> {
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        let limit =
            usize::try_from(limit).ok().filter(|_| (1..=MAX_LIMIT).contains(&limit)).ok_or_else(|| {
                Problem::invalid_parameter(
                    "limit",
                    field_codes::OUT_OF_RANGE,
                    format!("from 1 to {MAX_LIMIT}"),
                )
            });
        let offset = match (&self.cursor, self.offset) {
            (None, offset) => usize::try_from(offset.unwrap_or_default())
                .ok()
                .filter(|offset| *offset <= MAX_OFFSET)
                .ok_or_else(|| {
                    let detail = format!("from 0 to {MAX_OFFSET}");
                    Problem::invalid_parameter("offset", field_codes::OUT_OF_RANGE, detail)
                }),
            (Some(cursor), None) => cursor.parse().map_err(|_| {
                let detail = "not a `next_cursor` of this list";
                Problem::invalid_parameter("cursor", field_codes::INVALID, detail)
            }),
            (Some(_), Some(_)) => {
                let detail = "either a cursor or an offset";
                Err(Problem::invalid_parameter("cursor", field_codes::INVALID, detail))
            }
        };
        let (limit, offset) = both(limit, offset)?;
        let total = all.len();
        let items = all.into_iter().skip(offset).take(limit).collect::<Vec<_>>();
        let end = offset.saturating_add(items.len());
        let next_cursor = (end < total && !items.is_empty()).then(|| end.to_string());
        let total = total as u64;
        Ok(Page { items, total, next_cursor })
    }
}

#[cfg(test)]
mod tests {
    use super::PageParams;

    fn page(limit: Option<i64>, offset: Option<i64>, cursor: Option<&str>) -> Result<Vec<usize>, ()> {
        let params = PageParams { limit, offset, cursor: cursor.map(str::to_owned) };
        params.of((0..50).collect()).map(|page| page.items).map_err(|_| ())
    }

    #[test]
    fn cuts() {
        assert_eq!(page(None, None, None), Ok((0..20).collect()));
        assert_eq!(page(Some(2), Some(49), None), Ok(vec![49]));
        assert_eq!(page(Some(2), None, Some("48")), Ok(vec![48, 49]));
        assert_eq!(page(Some(2), Some(10_000), None), Ok(vec![]));
    }

    #[test]
    fn refuses_what_is_out_of_range() {
        for (limit, offset, cursor) in [
            (Some(0), None, None),
            (Some(-1), None, None),
            (Some(201), None, None),
            (None, Some(-1), None),
            (None, Some(10_001), None),
            (None, None, Some("x")),
            (None, Some(1), Some("1")),
        ] {
            assert_eq!(page(limit, offset, cursor), Err(()));
        }
    }

    #[test]
    fn cursors_lead_through_everything_once() {
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let page =
                PageParams { limit: Some(7), offset: None, cursor }.of((0..50).collect()).expect("valid");
            seen.extend(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, (0..50).collect::<Vec<_>>());
    }
}
