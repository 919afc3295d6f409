//! Plots as SVG, without any library and without scripts: they open wherever the report does.

use std::fmt::Write;

use crate::base::number::{count_of, f64_of_count};

/// Size of the area that is drawn in.
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 240.0;
/// Room for what stands left of it, and around the other sides.
const LEFT: f64 = 58.0;
const AROUND: f64 = 34.0;
/// About so many steps an axis has.
const STEPS: f64 = 5.0;

/// One plot under way.
pub struct Plot {
    svg: String,
    x: (f64, f64),
    y: (f64, f64),
    wide: f64,
}

impl Plot {
    /// An empty one with its axes. `wide`: how many times as wide as others.
    #[must_use]
    pub fn new(title: &str, (x_name, x): (&str, (f64, f64)), (y_name, y): (&str, (f64, f64)), wide: f64) -> Self {
        let sound = |(low, high): (f64, f64)| if low.is_finite() && high.is_finite() && high != low { (low, high) } else { (0.0, 1.0) };
        let mut plot = Plot { svg: String::new(), x: sound(x), y: sound(y), wide };
        let (width, right, bottom) = (LEFT + WIDTH * wide + AROUND, LEFT + WIDTH * wide, AROUND + HEIGHT);
        let height = HEIGHT + 2.6 * AROUND;
        plot.put(&format!(
            "<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"{}\">",
            escape(title)
        ));
        plot.put(&format!("<text class=\"title\" x=\"{LEFT}\" y=\"18\">{}</text>", escape(title)));
        for vx in round_numbers(plot.x) {
            let px = plot.at_x(vx);
            plot.put(&format!("<line class=\"grid\" x1=\"{px:.1}\" y1=\"{AROUND}\" x2=\"{px:.1}\" y2=\"{bottom}\"/>"));
            plot.put(&format!("<text class=\"tick\" text-anchor=\"middle\" x=\"{px:.1}\" y=\"{:.1}\">{}</text>", bottom + 15.0, short(vx)));
        }
        for vy in round_numbers(plot.y) {
            let py = plot.at_y(vy);
            plot.put(&format!("<line class=\"grid\" x1=\"{LEFT}\" y1=\"{py:.1}\" x2=\"{right}\" y2=\"{py:.1}\"/>"));
            plot.put(&format!(
                "<text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT - 5.0,
                py + 4.0,
                short(vy)
            ));
        }
        plot.put(&format!(
            "<text class=\"axis\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            0.5 * (LEFT + right),
            bottom + 34.0,
            escape(x_name)
        ));
        let middle = AROUND + 0.5 * HEIGHT;
        plot.put(&format!(
            "<text class=\"axis\" text-anchor=\"middle\" transform=\"translate(13 {middle}) rotate(-90)\">{}</text>",
            escape(y_name)
        ));
        plot
    }

    fn put(&mut self, text: &str) {
        self.svg.push_str(text);
        self.svg.push('\n');
    }

    fn at_x(&self, x: f64) -> f64 {
        LEFT + WIDTH * self.wide * ((x - self.x.0) / (self.x.1 - self.x.0)).clamp(0.0, 1.0)
    }

    fn at_y(&self, y: f64) -> f64 {
        AROUND + HEIGHT * (1.0 - ((y - self.y.0) / (self.y.1 - self.y.0)).clamp(0.0, 1.0))
    }

    /// A line through points.
    #[must_use]
    pub fn line(mut self, class: &str, points: &[(f64, f64)]) -> Self {
        let mut path = String::new();
        for (x, y) in points.iter().filter(|(x, y)| x.is_finite() && y.is_finite()) {
            let _ = write!(path, "{:.1},{:.1} ", self.at_x(*x), self.at_y(*y));
        }
        self.put(&format!("<polyline class=\"{class}\" points=\"{}\"/>", path.trim_end()));
        self
    }

    /// Points.
    #[must_use]
    pub fn dots(mut self, class: &str, points: &[(f64, f64)]) -> Self {
        for (x, y) in points.iter().filter(|(x, y)| x.is_finite() && y.is_finite()) {
            let circle = format!("<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>", self.at_x(*x), self.at_y(*y));
            self.put(&circle);
        }
        self
    }

    /// A text beside a point.
    #[must_use]
    pub fn label(mut self, x: f64, y: f64, text: &str) -> Self {
        if x.is_finite() && y.is_finite() {
            let text =
                format!("<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\">{}</text>", self.at_x(x) + 5.0, self.at_y(y) - 4.0, escape(text));
            self.put(&text);
        }
        self
    }

    /// Bars of equal width from 0 up.
    #[must_use]
    pub fn bars(mut self, class: &str, heights: &[f64]) -> Self {
        let step = WIDTH * self.wide / f64_of_count(heights.len().max(1));
        for (i, height) in heights.iter().enumerate().filter(|(_, height)| height.is_finite()) {
            let top = self.at_y(*height);
            let bar = format!(
                "<rect class=\"{class}\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                LEFT + step * f64_of_count(i) + 0.5,
                step - 1.0,
                self.at_y(self.y.0) - top
            );
            self.put(&bar);
        }
        self
    }

    /// A heat map of rows of numbers from 0 on, the largest the darkest, the first row at the top, over the whole area; each cell says its text when the pointer rests on it.
    #[must_use]
    pub fn cells(mut self, rows: &[Vec<f32>], text: &dyn Fn(usize, usize, f32) -> String) -> Self {
        let high = HEIGHT / f64_of_count(rows.len().max(1));
        let most = rows.iter().flatten().copied().filter(|value| value.is_finite()).fold(f32::MIN_POSITIVE, f32::max);
        for (row, values) in rows.iter().enumerate() {
            let wide = WIDTH * self.wide / f64_of_count(values.len().max(1));
            // What is next to nothing is left white: most cells are.
            for (column, value) in values.iter().enumerate().filter(|(_, value)| value.is_finite() && **value > 0.004 * most) {
                let cell = format!(
                    "<rect class=\"heat\" x=\"{:.1}\" y=\"{:.1}\" width=\"{wide:.2}\" height=\"{high:.2}\" fill-opacity=\"{:.2}\"><title>{}</title></rect>",
                    LEFT + wide * f64_of_count(column),
                    AROUND + high * f64_of_count(row),
                    (value / most).clamp(0.0, 1.0),
                    escape(&text(row, column, *value))
                );
                self.put(&cell);
            }
        }
        self
    }

    /// Upright lines with a text that shows when the pointer rests on them.
    #[must_use]
    pub fn stems(mut self, class: &str, stems: &[(f64, String)]) -> Self {
        for (x, text) in stems {
            let px = self.at_x(*x);
            let stem = format!(
                "<line class=\"{class}\" x1=\"{px:.1}\" y1=\"{AROUND}\" x2=\"{px:.1}\" y2=\"{:.1}\"><title>{}</title></line>",
                AROUND + HEIGHT,
                escape(text)
            );
            self.put(&stem);
        }
        self
    }

    /// The finished picture.
    #[must_use]
    pub fn close(mut self) -> String {
        self.put("</svg>");
        self.svg
    }
}

/// Where an axis is marked: the multiples of 1, 2, 2.5 or 5 times a power of ten within it, about `STEPS` of them.
fn round_numbers((low, high): (f64, f64)) -> Vec<f64> {
    let least = (high - low) / STEPS;
    let power = libm::pow(10.0, least.log10().floor());
    let step = power * [1.0, 2.0, 2.5, 5.0].into_iter().find(|times| times * power >= 0.999 * least).unwrap_or(10.0);
    let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
    (0..=count_of(last - first)).map(|i| (first + f64_of_count(i)) * step).collect()
}

/// A number on an axis.
fn short(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        return "0".to_owned();
    }
    if !(0.001..10_000.0).contains(&size) {
        return format!("{value:.1e}");
    }
    let digits = if size >= 100.0 { 0 } else { 3 };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Text that may stand in HTML.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_is_left_out_and_text_is_escaped() {
        let plot = Plot::new("a < b & \"c\"", ("x", (0.0, 1.0)), ("y", (f64::NAN, 1.0)), 1.0);
        let svg = plot
            .line("l", &[(0.0, 0.0), (f64::NAN, 1.0), (1.0, 2.0)])
            .dots("d", &[(0.5, f64::INFINITY)])
            .bars("b", &[0.5, f64::NAN])
            .close();
        assert!(svg.contains("a &lt; b &amp; &quot;c&quot;") && !svg.contains("NaN") && !svg.contains("inf"));
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert_eq!(svg.matches("<circle").count(), 0);
        assert_eq!(svg.matches("<rect").count(), 1);
    }

    #[test]
    fn numbers_on_axes_are_short() {
        assert_eq!([0.0, 0.2, 0.25, 3.0, 250.0, 12_345.0, 0.0001].map(short), ["0", "0.2", "0.25", "3", "250", "1.2e4", "1.0e-4"]);
    }

    #[test]
    fn axes_are_marked_at_round_numbers() {
        let marked = |low, high| round_numbers((low, high)).into_iter().map(short).collect::<Vec<_>>().join(" ");
        assert_eq!(marked(0.0, 1.0), "0 0.2 0.4 0.6 0.8 1");
        assert_eq!(marked(0.0, 240.3), "0 50 100 150 200");
        assert_eq!(marked(-1.3, 2.1), "-1 0 1 2");
        assert_eq!(marked(0.0, 0.404), "0 0.1 0.2 0.3 0.4");
        assert_eq!(marked(3.02, 3.04), "3.02 3.025 3.03 3.035 3.04");
        // Of an axis without a length there is still one mark or none, not thousands.
        assert!(round_numbers((5.0, 5.0 + f64::EPSILON * 8.0)).len() < 20);
    }
}
