//! A query's text to expressions, and these over rows.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, DataFusionError};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion_expr::{Expr, Volatility};
use datafusion_optimizer::analyzer::type_coercion::TypeCoercionRewriter;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast::{self, Ident, SelectItem, visit_expressions_mut};
use datafusion_sql::sqlparser::dialect::GenericDialect;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::Token;

use super::functions::Functions;
use super::{SELECT, WHERE};
use crate::base::error::{Error, Kind, Result};
use crate::base::nearest::nearest;

/// Condition and computed columns.
#[derive(Clone, Debug)]
pub struct Query {
    command: &'static str,
    filter: Option<(String, Written)>,
    select: Option<String>,
    items: Vec<(String, Written)>,
}

/// An expression whose columns are named by their paths.
#[derive(Clone, Debug)]
struct Written {
    expression: ast::Expr,
    columns: BTreeSet<String>,
}

/// A query with the columns of files.
#[derive(Clone, Debug)]
pub struct Bound {
    command: &'static str,
    columns: SchemaRef,
    filter: Option<Arc<dyn PhysicalExpr>>,
    /// Where each column comes from.
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Kept(usize),
    Computed(Arc<dyn PhysicalExpr>),
}

impl Query {
    /// `None` where neither is given.
    ///
    /// # Errors
    /// A text is no expression, a computed column has no name or that of another, or what it calls depends on more than a row.
    pub fn parse(command: &'static str, filter: Option<&str>, select: Option<&str>) -> Result<Option<Query>> {
        if filter.or(select).is_none() {
            return Ok(None);
        }
        let fault = |option: &str, text: String| Error::new(Kind::Usage, command, format!("{option}: {text}"));
        let functions = Functions::new();
        let mut query = Query { command, filter: None, select: select.map(str::to_owned), items: Vec::new() };
        if let Some(text) = filter {
            let expression = read(text, |parser| parser.parse_expr()).map_err(|e| {
                fault(WHERE, e).help("write a condition over the files' columns, such as \"amount > 10 AND country IN ('DE', 'FR')\"")
            })?;
            query.filter = Some((text.to_owned(), Written::of(command, WHERE, expression, &functions)?));
        }
        let Some(text) = select else { return Ok(Some(query)) };
        let help = "write expressions with names, such as \"amount / 100.0 AS amount, lower(country) AS country\"; all other columns stay";
        let items =
            read(text, |parser| parser.parse_comma_separated(Parser::parse_select_item)).map_err(|e| fault(SELECT, e).help(help))?;
        for item in items {
            let SelectItem::ExprWithAlias { expr, alias } = item else {
                return Err(fault(SELECT, format!("`{item}` has no name")).help(help));
            };
            if query.items.iter().any(|(name, _)| *name == alias.value) {
                return Err(fault(SELECT, format!("two columns have the name `{}`", alias.value)).help("leave one of them out"));
            }
            query.items.push((alias.value, Written::of(command, SELECT, expr, &functions)?));
        }
        Ok(Some(query))
    }

    /// The condition as it was given.
    #[must_use]
    pub fn filter(&self) -> Option<&str> {
        self.filter.as_ref().map(|(text, _)| text.as_str())
    }

    /// The computed columns as they were given.
    #[must_use]
    pub fn select(&self) -> Option<&str> {
        self.select.as_deref()
    }

    /// Names of the computed columns.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.items.iter().map(|(name, _)| name.as_str())
    }

    /// Columns of the files that `wanted` columns take: those that are not computed, and what condition and computed ones are made of.
    #[must_use]
    pub fn inputs(&self, wanted: &[String]) -> Vec<String> {
        let plain = wanted.iter().filter(|name| self.names().all(|own| own != name.as_str()));
        let computed = self.items.iter().filter(|(name, _)| wanted.contains(name)).map(|(_, written)| written);
        let read = self.filter.iter().map(|(_, written)| written).chain(computed).flat_map(|written| &written.columns);
        let mut seen = BTreeSet::new();
        plain.chain(read).filter(|name| seen.insert(name.as_str())).cloned().collect()
    }

    /// A column that is read and not there: the option that reads it, and its name.
    #[must_use]
    pub fn missing(&self, columns: &SchemaRef) -> Option<(&'static str, &str)> {
        let filter = self.filter.iter().map(|(_, written)| (WHERE, written));
        let all = filter.chain(self.items.iter().map(|(_, written)| (SELECT, written)));
        all.flat_map(|(option, written)| written.columns.iter().map(move |name| (option, name.as_str())))
            .find(|(_, name)| columns.column_with_name(name).is_none())
    }

    /// The query over the columns of files, which hold at least `inputs`; what comes out has those of the `wanted` columns that there are.
    ///
    /// # Errors
    /// The types of the columns do not fit the expressions, the condition is none, or a computed column is of a type that nothing reads.
    pub fn bind(&self, columns: &SchemaRef, wanted: &[String]) -> Result<Bound> {
        let functions = Functions::new();
        let plan = |option: &'static str, written: &Written| {
            typed(written, columns, &functions).map_err(|e| Error::new(Kind::Usage, self.command, format!("{option}: {}", plain_text(&e))))
        };
        let filter = self.filter.as_ref().map(|(text, written)| {
            let (kind, expression) = plan(WHERE, written)?;
            if kind == DataType::Boolean {
                return Ok(expression);
            }
            Err(Error::new(Kind::Usage, self.command, format!("{WHERE}: `{text}` is {kind}, not true or false"))
                .help("compare it with something, such as `> 0` or `IS NOT NULL`"))
        });
        let kept = columns.fields().iter().enumerate().filter(|(_, field)| wanted.contains(field.name()));
        let mut parts: Vec<(Arc<Field>, Part)> = kept.map(|(i, field)| (Arc::clone(field), Part::Kept(i))).collect();
        for (name, written) in self.items.iter().filter(|(name, _)| wanted.contains(name)) {
            let (kind, expression) = plan(SELECT, written)?;
            let kind = readable(&kind).ok_or_else(|| {
                Error::new(Kind::Usage, self.command, format!("{SELECT}: `{name}` would be {kind}"))
                    .help("a column is a number, a text, true or false, or a time")
            })?;
            let part = (Arc::new(Field::new(name, kind, true)), Part::Computed(expression));
            match parts.iter_mut().find(|(field, _)| field.name() == name) {
                Some(own) => *own = part,
                None => parts.push(part),
            }
        }
        let (fields, parts): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        Ok(Bound { command: self.command, columns: Arc::new(Schema::new(fields)), filter: filter.transpose()?, parts })
    }
}

impl Bound {
    /// The columns that come out.
    #[must_use]
    pub fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// The rows that are kept, with those columns.
    ///
    /// # Errors
    /// An expression has no value for a row: a text that is no number is cast to one, a whole number is divided by zero.
    pub fn apply(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let fault = |option: &str, e: DataFusionError| {
            Error::new(Kind::Data, self.command, format!("{option}: {}", plain_text(&e)))
                .help("guard it: TRY_CAST instead of CAST, NULLIF(x, 0) as a divisor, CASE WHEN .. THEN .. END")
        };
        let kept = match &self.filter {
            None => rows.clone(),
            Some(filter) => {
                let mask = values(&**filter, rows).map_err(|e| fault(WHERE, e))?;
                filter_record_batch(rows, mask.as_boolean()).map_err(|e| fault(WHERE, e.into()))?
            }
        };
        let arrays = self.parts.iter().zip(self.columns.fields()).map(|(part, field)| match part {
            Part::Kept(i) => Ok(Arc::clone(kept.column(*i))),
            Part::Computed(expression) => {
                let array = values(&**expression, &kept).map_err(|e| fault(SELECT, e))?;
                cast(&array, field.data_type()).map_err(|e| fault(SELECT, e.into()))
            }
        });
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(kept.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.columns), arrays, &options).map_err(|e| fault(SELECT, e.into()))
    }
}

impl Written {
    /// Names every column by its path, as one word: so `a.b` is a column, not one of a table.
    fn of(command: &'static str, option: &str, mut expression: ast::Expr, functions: &Functions) -> Result<Written> {
        let mut columns = BTreeSet::new();
        let refused = visit_expressions_mut(&mut expression, |part| {
            let path = match part {
                ast::Expr::Identifier(word) => word.value.clone(),
                ast::Expr::CompoundIdentifier(words) => words.iter().map(|word| word.value.as_str()).collect::<Vec<_>>().join("."),
                ast::Expr::Subquery(_) | ast::Expr::InSubquery { .. } | ast::Expr::Exists { .. } => {
                    return ControlFlow::Break("a query within the expression: there is nothing but the row to be asked".to_owned());
                }
                ast::Expr::Function(call) => return depends(call, functions),
                _ => return ControlFlow::Continue(()),
            };
            *part = ast::Expr::Identifier(Ident::with_quote('"', &path));
            columns.insert(path);
            ControlFlow::Continue(())
        });
        match refused {
            ControlFlow::Continue(()) => Ok(Written { expression, columns }),
            ControlFlow::Break(why) => Err(Error::new(Kind::Usage, command, format!("{option}: {why}"))
                .help("only what the row alone decides gives the same forecasts again: write times as literals, or keep them in a column")),
        }
    }
}

/// Refuses a call of what is unknown or depends on more than its arguments.
fn depends(call: &ast::Function, functions: &Functions) -> ControlFlow<String> {
    let name = call.name.to_string().to_lowercase();
    if call.over.is_some() {
        return ControlFlow::Break(format!("`{name}` over other rows"));
    }
    match functions.get(&name) {
        Some(function) if function.signature().volatility == Volatility::Immutable => ControlFlow::Continue(()),
        Some(_) => ControlFlow::Break(format!("`{name}` gives another value in another run")),
        None => {
            let near = nearest(&name, functions.names()).map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
            ControlFlow::Break(format!("there is no function `{name}` of a row{near}"))
        }
    }
}

/// Reads a whole text.
fn read<T>(text: &str, part: impl FnOnce(&mut Parser<'_>) -> std::result::Result<T, ParserError>) -> std::result::Result<T, String> {
    let dialect = GenericDialect {};
    let found = Parser::new(&dialect).try_with_sql(text).and_then(|mut parser| {
        let found = part(&mut parser)?;
        parser.expect_token(&Token::EOF)?;
        Ok(found)
    });
    found.map_err(|e| match e {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
        ParserError::RecursionLimitExceeded => "the expression is nested too deeply".to_owned(),
    })
}

/// The expression over columns, with its type.
fn typed(
    written: &Written,
    columns: &SchemaRef,
    functions: &Functions,
) -> std::result::Result<(DataType, Arc<dyn PhysicalExpr>), DataFusionError> {
    let schema = DFSchema::try_from(Arc::clone(columns))?;
    let options = ParserOptions { enable_ident_normalization: false, map_string_types_to_utf8view: false, ..ParserOptions::new() };
    let planner = SqlToRel::new_with_options(functions, options);
    let logical = planner.sql_to_expr(written.expression.clone(), &schema, &mut PlannerContext::new())?;
    // Syntax of its own (`CURRENT_DATE`, `EXTRACT`) calls functions as well.
    logical.apply(|part| match part {
        Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
            Err(DataFusionError::Plan(format!("`{}` gives another value in another run", call.func.name())))
        }
        _ => Ok(TreeNodeRecursion::Continue),
    })?;
    let logical = logical.rewrite(&mut TypeCoercionRewriter::new(&schema))?.data;
    // Some functions, `coalesce` among them, are only ways to write others: they have no value by themselves.
    // Nothing else is made simpler: what is evaluated of a row would depend on how.
    let simple = SimplifyContext::builder().with_schema(Arc::new(schema.clone())).build();
    let logical = logical
        .transform_up(|part| match part {
            Expr::ScalarFunction(call) => match call.func.simplify(call.args, &simple)? {
                ExprSimplifyResult::Simplified(other) => Ok(Transformed::yes(other)),
                ExprSimplifyResult::Original(args) => Ok(Transformed::no(Expr::ScalarFunction(ScalarFunction { func: call.func, args }))),
            },
            other => Ok(Transformed::no(other)),
        })?
        .data;
    let expression = create_physical_expr(&logical, &schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())?;
    Ok((expression.data_type(columns)?, expression))
}

fn values(expression: &dyn PhysicalExpr, rows: &RecordBatch) -> std::result::Result<ArrayRef, DataFusionError> {
    expression.evaluate(rows)?.into_array(rows.num_rows())
}

/// The type as decoding reads it; `None` for one that it does not.
fn readable(kind: &DataType) -> Option<DataType> {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(DataType::Utf8),
        DataType::Dictionary(_, values) => readable(values),
        DataType::Boolean | DataType::Null | DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => Some(kind.clone()),
        kind if kind.is_numeric() => Some(kind.clone()),
        _ => None,
    }
}

/// The innermost cause, on one line.
fn plain_text(error: &DataFusionError) -> String {
    error.find_root().strip_backtrace().lines().collect::<Vec<_>>().join(" ")
}
