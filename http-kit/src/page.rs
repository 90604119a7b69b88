//! Pages of lists, the same for all lists.

use std::borrow::Cow;

use serde::Serialize;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{KnownFormat, Ref, RefOr, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

/// Part of a list. In the `OpenAPI` document, that of a `User` is a `UserPage`, and its items refer to `User`.
///
/// An operation names it through an alias without parameters, `type UserPage = Page<UserBody>`: utoipa would join the names of
/// a type and its parameters.
#[derive(Clone, Debug, Serialize)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// The number of items on all pages.
    pub total: u64,
    /// The `cursor` of the next page; null on the last page.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// A list that is one page.
    pub fn whole(items: Vec<T>) -> Self {
        Self { total: items.len() as u64, items, next_cursor: None }
    }

    /// The same page with its items mapped.
    pub fn with<U>(self, items: Vec<U>) -> Page<U> {
        Page { items, total: self.total, next_cursor: self.next_cursor }
    }
}

impl<T: ToSchema> PartialSchema for Page<T> {
    fn schema() -> RefOr<Schema> {
        let item = Ref::from_schema_name(T::name());
        let items = ArrayBuilder::new().items(item).description(Some("The items."));
        let total = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .minimum(Some(0))
            .description(Some("The number of items on all pages."));
        let next_cursor = ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
            .description(Some("The `cursor` of the next page; null on the last page."));
        let page = ObjectBuilder::new()
            .property("items", items)
            .required("items")
            .property("total", total)
            .required("total")
            .property("next_cursor", next_cursor)
            .required("next_cursor")
            .description(Some("A page of a list."));
        page.build().into()
    }
}

impl<T: ToSchema> ToSchema for Page<T> {
    fn name() -> Cow<'static, str> {
        format!("{}Page", T::name()).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, to_value};

    use super::Page;

    #[derive(utoipa::ToSchema)]
    #[schema(as = Thing)]
    #[expect(dead_code, reason = "only its description is used")]
    struct ThingBody {
        /// Its name.
        name: String,
    }

    type ThingPage = Page<ThingBody>;

    #[utoipa::path(get, path = "/things", responses((status = 200, description = "A page", body = ThingPage)))]
    #[expect(dead_code, reason = "only its description is used")]
    fn list() {}

    #[derive(utoipa::OpenApi)]
    #[openapi(paths(list))]
    struct Api;

    #[test]
    fn it_is_named_after_its_items_and_refers_to_them() {
        use utoipa::OpenApi as _;
        let document = to_value(Api::openapi()).expect("a document is JSON");
        let answer = &document["paths"]["/things"]["get"]["responses"]["200"]["content"]["application/json"];
        assert_eq!(answer["schema"], json!({ "$ref": "#/components/schemas/ThingPage" }));
        let schemas = &document["components"]["schemas"];
        assert_eq!(
            schemas["ThingPage"]["properties"]["items"]["items"],
            json!({ "$ref": "#/components/schemas/Thing" })
        );
        assert!(schemas["Thing"]["properties"]["name"].is_object());
        assert_eq!(schemas.as_object().map(serde_json::Map::len), Some(2));
    }

    #[test]
    fn it_is_written_as_it_is_described() {
        let page = Page { items: vec![1, 2], total: 7, next_cursor: None };
        assert_eq!(
            to_value(&page).expect("JSON"),
            json!({ "items": [1, 2], "total": 7, "next_cursor": null })
        );
        assert_eq!(
            to_value(page.with(vec!["one"])).expect("JSON"),
            json!({ "items": ["one"], "total": 7, "next_cursor": null })
        );
        assert_eq!(Page::whole(vec![(); 3]).total, 3);
    }
}
