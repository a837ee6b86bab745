//! Checks answers against the OpenAPI document. For tests: ours, and those that talk to the daemon over
//! the wire (feature `contract`).

use std::collections::HashMap;

use jsonschema::Validator;
use serde_json::{Value, json};

/// How an answer differs from what the document promises.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The status is not one the document gives for this operation.
    #[error("{method} {path}: status {status} is not documented")]
    Status {
        /// Request method.
        method: String,
        /// Request path.
        path: String,
        /// Status of the answer.
        status: u16,
    },
    /// The content type is not the documented one.
    #[error("{method} {path} {status}: content type {found:?} is not documented")]
    ContentType {
        /// Request method.
        method: String,
        /// Request path.
        path: String,
        /// Status of the answer.
        status: u16,
        /// What was sent.
        found: Option<String>,
    },
    /// The body does not fit its schema.
    #[error("{method} {path} {status}: {reason}: {body}")]
    Body {
        /// Request method.
        method: String,
        /// Request path.
        path: String,
        /// Status of the answer.
        status: u16,
        /// What does not fit.
        reason: String,
        /// The body.
        body: String,
    },
}

/// The document, ready to check answers against.
#[derive(Debug)]
pub struct Contract {
    document: Value,
    /// Compiled schemas by JSON pointer of a media type or component.
    validators: std::sync::Mutex<HashMap<String, std::sync::Arc<Validator>>>,
}

impl Default for Contract {
    fn default() -> Self {
        Self::new()
    }
}

/// Schema of every error that the documented operations do not name themselves.
const ERROR: &str = "/components/schemas/Error";

fn escape(text: &str) -> String {
    text.replace('~', "~0").replace('/', "~1")
}

impl Contract {
    /// The document of this crate.
    ///
    /// # Panics
    /// When it is not YAML.
    #[must_use]
    pub fn new() -> Self {
        let document =
            serde_norway::from_str(crate::openapi()).expect("the shipped document is YAML");
        Self { document, validators: std::sync::Mutex::default() }
    }

    /// The document as JSON.
    #[must_use]
    pub const fn document(&self) -> &Value {
        &self.document
    }

    /// Every documented operation: method in upper case, path template.
    #[must_use]
    pub fn operations(&self) -> Vec<(String, String)> {
        let paths = self.document["paths"].as_object().into_iter().flatten();
        paths
            .flat_map(|(path, item)| {
                let methods = item.as_object().into_iter().flatten();
                methods
                    .filter(|(method, _)| *method != "parameters")
                    .map(move |(method, _)| (method.to_uppercase(), path.clone()))
            })
            .collect()
    }

    /// The path template that a path belongs to; literal segments win over parameters.
    fn template(&self, path: &str) -> Option<&String> {
        let path = path.split('?').next().unwrap_or_default();
        let segments: Vec<&str> = path.split('/').collect();
        let templates = self.document["paths"].as_object()?.keys();
        templates
            .filter(|template| {
                let parts: Vec<&str> = template.split('/').collect();
                let fits = |(part, segment): (&&str, &&str)| {
                    part == segment || (part.starts_with('{') && !segment.is_empty())
                };
                parts.len() == segments.len() && parts.iter().zip(&segments).all(fits)
            })
            .min_by_key(|template| template.matches('{').count())
    }

    fn follow(&self, mut pointer: String) -> Option<(String, &Value)> {
        for _ in 0..8 {
            let value = self.document.pointer(&pointer)?;
            match value.get("$ref").and_then(Value::as_str) {
                Some(reference) => pointer = reference.strip_prefix('#')?.to_owned(),
                None => return Some((pointer, value)),
            }
        }
        None
    }

    fn validator(&self, pointer: &str) -> Result<std::sync::Arc<Validator>, String> {
        let mut cache = self.validators.lock().map_err(|error| error.to_string())?;
        if let Some(validator) = cache.get(pointer) {
            return Ok(std::sync::Arc::clone(validator));
        }
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            // In place, not by reference: path templates hold braces, which no reference may.
            "allOf": [self.document.pointer(pointer).ok_or("no such schema")?],
            "components": self.document["components"],
        });
        let validator = jsonschema::validator_for(&schema).map_err(|error| error.to_string())?;
        let validator = std::sync::Arc::new(validator);
        cache.insert(pointer.to_owned(), std::sync::Arc::clone(&validator));
        Ok(validator)
    }

    /// Checks a JSON value against a schema of the document, `TxDetails` say.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check_schema(&self, name: &str, value: &Value) -> Result<(), String> {
        let validator = self.validator(&format!("/components/schemas/{name}"))?;
        validator.validate(value).map_err(|error| format!("{} at {}", error, error.instance_path))
    }

    /// Checks an answer. `path` may have a query; `content_type` is the header's value.
    ///
    /// # Errors
    /// The first difference from the document.
    pub fn check(
        &self,
        method: &str,
        path: &str,
        status: u16,
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<(), Violation> {
        let wrong_status =
            || Violation::Status { method: method.to_owned(), path: path.to_owned(), status };
        let wrong_body = |reason: String| Violation::Body {
            method: method.to_owned(),
            path: path.to_owned(),
            status,
            reason,
            body: String::from_utf8_lossy(body).into_owned(),
        };
        let wrong_type = || Violation::ContentType {
            method: method.to_owned(),
            path: path.to_owned(),
            status,
            found: content_type.map(ToOwned::to_owned),
        };
        if method == "OPTIONS" {
            return match (status, body) {
                (200 | 403, _) if body.is_empty() || status == 403 => Ok(()),
                _ => Err(wrong_status()),
            };
        }
        let verb = if method == "HEAD" { "get" } else { &method.to_lowercase() };
        let template = self.template(path);
        let operation = template.and_then(|template| {
            let pointer = format!("/paths/{}/{verb}", escape(template));
            self.document.pointer(&pointer).map(|_| pointer)
        });
        let content = match (&operation, template) {
            (Some(operation), _) => {
                let response = format!("{operation}/responses/{status}");
                let (pointer, response) = self.follow(response).ok_or_else(wrong_status)?;
                match response.get("content").and_then(Value::as_object) {
                    None => None,
                    Some(content) => {
                        let (media, _) = content.iter().next().ok_or_else(wrong_status)?;
                        let schema = format!("{pointer}/content/{}/schema", escape(media));
                        Some((media.clone(), schema))
                    }
                }
            }
            (None, Some(_)) if matches!(status, 403 | 405) => {
                Some(("application/json".to_owned(), ERROR.to_owned()))
            }
            (None, None) if matches!(status, 403 | 404) => {
                Some(("application/json".to_owned(), ERROR.to_owned()))
            }
            _ => return Err(wrong_status()),
        };
        let Some((media, schema)) = content else { return Ok(()) };
        let bare = content_type.map(|text| text.split(';').next().unwrap_or_default().trim());
        // JSON goes without a charset (`spec/api.md` 1.4).
        let fits = if media == "application/json" { content_type } else { bare } == Some(&*media);
        if !fits {
            return Err(wrong_type());
        }
        if method == "HEAD" {
            return if body.is_empty() { Ok(()) } else { Err(wrong_body("body".to_owned())) };
        }
        if media != "application/json" {
            return Ok(());
        }
        let value: Value =
            serde_json::from_slice(body).map_err(|error| wrong_body(error.to_string()))?;
        // One client takes any `message` for an error (`spec/api.md` 0.4).
        if status < 300 && value.get("message").is_some() && !path.ends_with("/signmessage") {
            return Err(wrong_body("a success with a message".to_owned()));
        }
        let validator = self.validator(&schema).map_err(wrong_body)?;
        validator
            .validate(&value)
            .map_err(|error| wrong_body(format!("{} at {}", error, error.instance_path)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    match value.as_str() {
                        Some(text) if key == "$ref" => found.push(text),
                        _ => references(value, found),
                    }
                }
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn the_document_is_whole() {
        let contract = Contract::new();
        let document = contract.document();
        assert_eq!(document["openapi"], "3.1.0");
        let mut found = Vec::new();
        references(document, &mut found);
        let used: HashSet<&str> = found.iter().copied().collect();
        for reference in &used {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
        for kind in ["schemas", "responses", "parameters"] {
            for name in document["components"][kind].as_object().unwrap().keys() {
                let reference = format!("#/components/{kind}/{name}");
                // Given for the answers to requests that no operation takes.
                let unused = reference.ends_with("MethodNotAllowed");
                assert!(unused || used.contains(&*reference), "{reference} is not used");
            }
        }
        for name in document["components"]["schemas"].as_object().unwrap().keys() {
            contract.validator(&format!("/components/schemas/{name}")).unwrap();
        }
    }

    #[test]
    fn every_operation_is_described() {
        let contract = Contract::new();
        let mut ids = HashSet::new();
        for (method, path) in contract.operations() {
            let item = &contract.document()["paths"][&path];
            let operation = &item[method.to_lowercase()];
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} is given twice");
            assert!(operation["summary"].is_string() && operation["security"].is_array(), "{id}");
            assert!(!operation["responses"].as_object().unwrap().is_empty(), "{id}");
            let named = item["parameters"].as_array().map_or(0, Vec::len);
            assert_eq!(named, path.matches('{').count(), "{path}");
        }
    }

    #[test]
    fn differences_are_found() {
        let contract = Contract::new();
        let check = |method, path, status, kind, body: &str| {
            contract.check(method, path, status, kind, body.as_bytes()).is_ok()
        };
        let json = Some("application/json");
        assert!(check("GET", "/api/v1/wallet/all", 200, json, r#"{"wallets":["a.jmdat"]}"#));
        assert!(!check("GET", "/api/v1/wallet/all", 200, json, r#"{"wallets":["a"]}"#));
        assert!(!check("GET", "/api/v1/wallet/all", 200, json, r#"{"wallets":[],"x":1}"#));
        assert!(!check("GET", "/api/v1/wallet/all", 202, json, r#"{"wallets":[]}"#));
        assert!(!check("GET", "/api/v1/wallet/all", 200, Some("text/html"), "{}"));
        let charset = Some("application/json; charset=utf-8");
        assert!(!check("GET", "/api/v1/wallet/all", 200, charset, r#"{"wallets":[]}"#));
        let error = r#"{"message":"Not found.","error_code":"not_found"}"#;
        assert!(check("GET", "/api/v1/nope", 404, json, error));
        assert!(!check("GET", "/api/v1/nope", 200, json, "{}"));
        assert!(check("PUT", "/api/v1/session", 405, json, error));
        assert!(!check("PUT", "/api/v1/session", 404, json, error));
        assert!(!check("POST", "/api/v1/wallet/w/freeze", 200, json, r#"{"message":"x"}"#));
        assert!(check("OPTIONS", "/anything", 200, None, ""));
    }
}
