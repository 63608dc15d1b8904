//! Validates specs offline as the API server does: schema, defaults, list types and CEL rules of our own CRDs.
//!
//! The order is that of the API server: prune nulls, apply defaults, check the schema, and evaluate the rules if the
//! schema accepts the spec. Unknown fields are refused, as with `kubectl apply` and strict validation.

mod rules;
mod schema;
mod sentences;

use serde_json::Value;

use crate::api::crd::schema_of_spec;
use crate::api::{MailListenerSpec, MailRouteSpec, MailServerSpec};

use super::render::Kind;
use super::violation::Violation;
use rules::Rules;

/// The schemas and rules of all kinds.
#[derive(Debug)]
pub struct Validator {
    server: Compiled,
    listener: Compiled,
    route: Compiled,
}

/// The CRDs of this program are broken. A test checks that they are not.
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
    rules: Rules,
}

impl Validator {
    /// Compiles the schemas.
    ///
    /// # Errors
    ///
    /// Fails if the CRDs of this program are broken.
    pub fn new() -> Result<Self, BrokenCrd> {
        Ok(Self {
            server: compile(schema_of_spec::<MailServerSpec>(), Kind::Server)?,
            listener: compile(schema_of_spec::<MailListenerSpec>(), Kind::Listener)?,
            route: compile(schema_of_spec::<MailRouteSpec>(), Kind::Route)?,
        })
    }

    /// Applies the defaults to a spec, and returns its violations.
    pub fn spec(&self, kind: Kind, spec: &mut Value) -> Vec<Violation> {
        let compiled = match kind {
            Kind::Server => &self.server,
            Kind::Listener => &self.listener,
            Kind::Route => &self.route,
        };
        schema::prune_nulls(spec);
        schema::make_integers(spec);
        schema::apply_defaults(&compiled.spec, spec);
        let errors = compiled.strict.iter_errors(spec);
        let mut found = sentences::once_each(
            errors.flat_map(|error| sentences::violations(&error, spec, &compiled.spec)),
        );
        found.extend(schema::duplicates(&compiled.spec, spec, "spec"));
        found.truncate(MAX_VIOLATIONS);
        if found.is_empty() { compiled.rules.check(&compiled.spec, spec, "spec") } else { found }
    }
}

/// The maximum number of violations of one object, which can have as many errors as fields.
const MAX_VIOLATIONS: usize = 100;

fn compile(spec: Value, kind: Kind) -> Result<Compiled, BrokenCrd> {
    let strict = jsonschema::validator_for(&schema::strict(&spec))
        .map_err(|error| BrokenCrd { kind: kind.name(), problem: error.to_string() })?;
    Ok(Compiled { rules: Rules::new(&spec), strict, spec })
}

#[cfg(test)]
pub(crate) mod tests;
