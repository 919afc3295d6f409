//! The functions that an expression may call, and how its text is planned.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, Float64Array};
use arrow::datatypes::{DataType, Float64Type};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{Result, TableReference, plan_err};
use datafusion_expr::planner::{ContextProvider, ExprPlanner};
use datafusion_expr::{AggregateUDF, ColumnarValue, HigherOrderUDF, ScalarUDF, TableSource, Volatility, WindowUDF, create_udf};

/// Functions of numbers whose result IEEE 754 or whole numbers prescribe to the bit.
const EXACT: [&str; 15] =
    ["abs", "ceil", "degrees", "factorial", "floor", "gcd", "isnan", "iszero", "lcm", "nanvl", "pi", "radians", "round", "signum", "trunc"];

type Unary = fn(f64) -> f64;

/// Functions whose last bit differs between C libraries: the same bits everywhere, as in the features. A square root is exact either way.
const UNARY: [(&str, Unary); 18] = [
    ("acos", libm::acos),
    ("acosh", libm::acosh),
    ("asin", libm::asin),
    ("asinh", libm::asinh),
    ("atan", libm::atan),
    ("atanh", libm::atanh),
    ("cbrt", libm::cbrt),
    ("cos", libm::cos),
    ("cosh", libm::cosh),
    ("exp", libm::exp),
    ("ln", libm::log),
    ("log10", libm::log10),
    ("log2", libm::log2),
    ("sin", libm::sin),
    ("sinh", libm::sinh),
    ("sqrt", libm::sqrt),
    ("tan", libm::tan),
    ("tanh", libm::tanh),
];

type Binary = fn(f64, f64) -> f64;

const BINARY: [(&str, Binary); 3] = [("atan2", libm::atan2), ("pow", libm::pow), ("power", libm::pow)];

/// What the planner of expressions looks names up in: functions of a row's values, and nothing else.
pub struct Functions {
    known: BTreeMap<String, Arc<ScalarUDF>>,
    planners: Vec<Arc<dyn ExprPlanner>>,
    options: ConfigOptions,
}

impl Functions {
    /// All that there are. Those that are refused because they depend on something else are among them, so that the refusal can say so.
    pub fn new() -> Self {
        let packages = [datafusion_functions::core::functions(), datafusion_functions::datetime::functions()];
        let texts = [
            datafusion_functions::regex::functions(),
            datafusion_functions::string::functions(),
            datafusion_functions::unicode::functions(),
        ];
        let numbers = datafusion_functions::math::functions().into_iter();
        let numbers = numbers.filter(|f| EXACT.contains(&f.name()) || f.signature().volatility != Volatility::Immutable);
        let mut known = BTreeMap::new();
        for function in packages.into_iter().chain(texts).flatten().chain(numbers) {
            for alias in function.aliases() {
                known.insert(alias.clone(), Arc::clone(&function));
            }
            known.insert(function.name().to_owned(), function);
        }
        known.extend(UNARY.map(|(name, f)| (name.to_owned(), Arc::new(unary(name, f)))));
        known.extend(BINARY.map(|(name, f)| (name.to_owned(), Arc::new(binary(name, f)))));
        Functions {
            known,
            planners: vec![
                Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
                Arc::new(datafusion_functions::datetime::planner::DatetimeFunctionPlanner),
                Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
            ],
            options: ConfigOptions::new(),
        }
    }

    /// A function by its name, also one that must not be called.
    pub fn get(&self, name: &str) -> Option<&Arc<ScalarUDF>> {
        self.known.get(name)
    }

    /// Names of the functions that may be called.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.known.iter().filter(|(_, f)| f.signature().volatility == Volatility::Immutable).map(|(name, _)| name.as_str())
    }
}

/// Rows of a call; a call with literals only has one.
fn rows(values: &[ColumnarValue]) -> usize {
    let mut arrays = values.iter().filter_map(|value| match value {
        ColumnarValue::Array(array) => Some(array.len()),
        ColumnarValue::Scalar(_) => None,
    });
    arrays.next().unwrap_or(1)
}

fn unary(name: &str, function: Unary) -> ScalarUDF {
    let call = move |values: &[ColumnarValue]| {
        let [values] = values else { return plan_err!("one number is expected") };
        let values = values.to_array(rows(std::slice::from_ref(values)))?;
        let found: Float64Array = values.as_primitive::<Float64Type>().unary(function);
        Ok(ColumnarValue::Array(Arc::new(found)))
    };
    create_udf(name, vec![DataType::Float64], DataType::Float64, Volatility::Immutable, Arc::new(call))
}

fn binary(name: &str, function: Binary) -> ScalarUDF {
    let call = move |values: &[ColumnarValue]| {
        let rows = rows(values);
        let [a, b] = values else { return plan_err!("two numbers are expected") };
        let (a, b) = (a.to_array(rows)?, b.to_array(rows)?);
        let pairs = a.as_primitive::<Float64Type>().iter().zip(b.as_primitive::<Float64Type>().iter());
        let found: Float64Array = pairs.map(|(a, b)| Some(function(a?, b?))).collect();
        Ok(ColumnarValue::Array(Arc::new(found)))
    };
    create_udf(name, vec![DataType::Float64; 2], DataType::Float64, Volatility::Immutable, Arc::new(call))
}

impl ContextProvider for Functions {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        plan_err!("there are no tables here, as `{name}` would be")
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.known.get(name).cloned()
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, _name: &str) -> Option<Arc<AggregateUDF>> {
        None
    }

    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        self.names().map(str::to_owned).collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}
