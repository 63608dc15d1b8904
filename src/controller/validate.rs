//! The API server's validation, offline: schema, defaults, list types and CEL rules of our own CRDs.
//!
//! The order is the API server's: nulls are pruned, defaults applied, the schema checked, and the rules
//! evaluated only on what the schema takes. Unlike an API server, it refuses unknown fields, as
//! `kubectl apply` does with strict validation.

mod rules;
mod schema;
mod sentences;

use std::collections::BTreeMap;

use cel::Program;
use serde_json::Value;

use crate::api::crd::{crds, schema_of};

use super::render::Kind;
use super::violation::Violation;

/// Both kinds' schemas and rules, compiled.
#[derive(Debug)]
pub struct Validator {
    server: Compiled,
    listener: Compiled,
}

/// Our own CRDs are broken; a test makes sure that they are not.
#[derive(Debug, thiserror::Error)]
#[error("the CRD of {kind} cannot be compiled: {problem}")]
pub struct BrokenCrd {
    kind: &'static str,
    problem: String,
}

#[derive(Debug)]
struct Compiled {
    spec: Value,
    strict: jsonschema::Validator,
    rules: BTreeMap<String, Program>,
}

impl Validator {
    /// Compiles the schemas and rules.
    ///
    /// # Errors
    /// When our own CRDs are broken.
    pub fn new() -> Result<Self, BrokenCrd> {
        let [server, listener] = crds();
        Ok(Self { server: compile(&server, Kind::Server)?, listener: compile(&listener, Kind::Listener)? })
    }

    /// Applies the defaults to a spec, and says what is wrong with it.
    pub fn spec(&self, kind: Kind, spec: &mut Value) -> Vec<Violation> {
        let compiled = match kind {
            Kind::Server => &self.server,
            Kind::Listener => &self.listener,
        };
        schema::prune_nulls(spec);
        schema::make_integers(spec);
        schema::apply_defaults(&compiled.spec, spec);
        let errors = compiled.strict.iter_errors(spec);
        let mut found = sentences::once_each(
            errors.flat_map(|error| sentences::violations(&error, spec, &compiled.spec)),
        );
        schema::check_lists(&compiled.spec, spec, "spec", &mut found);
        found.truncate(MAX_VIOLATIONS);
        if found.is_empty() {
            rules::check(&compiled.rules, &compiled.spec, spec, "spec", &mut found);
        }
        found
    }
}

/// What is said of one object: a large one can be wrong in as many places.
const MAX_VIOLATIONS: usize = 100;

fn compile(crd: &Value, kind: Kind) -> Result<Compiled, BrokenCrd> {
    let broken = |problem: String| BrokenCrd { kind: kind.name(), problem };
    let spec = schema_of(crd)["properties"]["spec"].clone();
    let strict =
        jsonschema::validator_for(&schema::strict(&spec)).map_err(|error| broken(error.to_string()))?;
    let mut rules = BTreeMap::new();
    rules::compile(&spec, &mut rules).map_err(broken)?;
    Ok(Compiled { spec, strict, rules })
}

#[cfg(test)]
pub(crate) mod tests;
