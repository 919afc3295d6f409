//! A panic as an error: a thread that others wait for must not end without a word.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use super::error::{Error, Result};

/// Runs a part of the program that others wait for, `who`. What it works on is not to be used any more after an error of this kind.
///
/// # Errors
/// It panicked: internal, with what it said.
pub fn guarded<T>(stage: &'static str, who: &str, run: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|payload| panicked(stage, who, payload.as_ref()))
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// As `guarded`, for what is only tried: nothing is printed, as the error says it all. What the panic said is given as it is.
///
/// # Errors
/// What it said.
pub fn tried<T>(run: impl FnOnce() -> T) -> std::result::Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                others(panic);
            }
        }));
    });
    let outer = QUIET.replace(true);
    let ended = catch_unwind(AssertUnwindSafe(run)).map_err(|payload| said(payload.as_ref()).to_owned());
    QUIET.set(outer);
    ended
}

/// The error for a panic whose payload was caught.
#[must_use]
pub fn panicked(stage: &'static str, who: &str, payload: &(dyn Any + Send)) -> Error {
    Error::internal(stage, format!("{who} panicked: {}", said(payload)))
        .help("what was not committed is done again by the next start. If it happens at the same record again, report it with the lines of the log above")
}

/// What a panic said.
fn said(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("it said nothing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_gives_what_its_panic_said() {
        assert_eq!(tried(|| 7), Ok(7));
        assert_eq!(tried(|| tried(|| panic!("inner")).map(|(): ()| ())), Ok(Err("inner".to_owned())));
        assert_eq!(tried(|| panic!("outer {}", 1)).map(|(): ()| ()), Err("outer 1".to_owned()));
        assert!(!QUIET.get());
    }

    #[test]
    fn a_panic_is_an_internal_error_with_who_and_what() {
        assert_eq!(guarded("run", "lane 0", || 7).unwrap(), 7);
        let place = 9;
        for (error, said) in [
            (guarded("run", "lane 3", || panic!("index {place} is out of bounds")).map(|(): ()| ()), "lane 3 panicked: index 9 is out"),
            (guarded("run", "lane 3", || panic!("plain")).map(|(): ()| ()), "lane 3 panicked: plain"),
            (guarded("run", "lane 3", || std::panic::panic_any(5)).map(|(): ()| ()), "it said nothing"),
        ] {
            let error = error.unwrap_err();
            assert!(error.exit_code() == 70 && error.to_string().contains(said), "{error}");
        }
    }
}
