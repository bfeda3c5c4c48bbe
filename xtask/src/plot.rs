//! Bar plots as SVG, of numbers that were measured.

use std::fmt::Write as _;

const WIDTH: f64 = 820.0;
const LABELS: f64 = 300.0;
/// Room for a number behind the longest bar.
const NUMBERS: f64 = 110.0;
const ROW: f64 = 26.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 14.0;

/// A bar.
pub(crate) struct Bar {
    /// What it is of.
    pub(crate) label: String,
    /// How long it is.
    pub(crate) value: f64,
    /// The number behind it.
    pub(crate) text: String,
    /// Its colour.
    pub(crate) colour: &'static str,
}

/// A plot of horizontal bars from 0 on, one below the other.
pub(crate) fn bars(title: &str, bars: &[Bar]) -> String {
    let height = TOP + ROW * bars.len() as f64 + BOTTOM;
    let most = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\" role=\"img\">\n\
         <title>{0}</title>\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"15\" font-weight=\"bold\" fill=\"#222222\">{0}</text>\n",
        escaped(title)
    );
    for (place, bar) in bars.iter().enumerate() {
        let y = TOP + ROW * place as f64;
        let length = if most > 0.0 { bar.value.max(0.0) / most * (WIDTH - LABELS - NUMBERS) } else { 0.0 };
        let (middle, behind) = (y + 16.0, LABELS + length + 6.0);
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\" fill=\"#222222\">{}</text>\n\
             <rect x=\"{LABELS}\" y=\"{}\" width=\"{length:.1}\" height=\"{}\" fill=\"{}\"/>\n\
             <text x=\"{behind:.1}\" y=\"{middle}\" fill=\"#222222\">{}</text>\n",
            LABELS - 8.0,
            escaped(&bar.label),
            y + 3.0,
            ROW - 8.0,
            bar.colour,
            escaped(&bar.text),
        );
    }
    let _ = write!(
        svg,
        "<line x1=\"{LABELS}\" y1=\"{}\" x2=\"{LABELS}\" y2=\"{}\" stroke=\"#222222\"/>\n</svg>\n",
        TOP - 4.0,
        height - BOTTOM
    );
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(label: &str, value: f64) -> Bar {
        Bar { label: label.to_owned(), value, text: value.to_string(), colour: "#000000" }
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        let svg = bars("a < b", &[bar("one", 50.0), bar("two", 100.0), bar("none", 0.0)]);
        let full = WIDTH - LABELS - NUMBERS;
        for length in [full / 2.0, full, 0.0] {
            assert!(svg.contains(&format!("width=\"{length:.1}\"")), "{svg}");
        }
        assert!(svg.contains("a &lt; b") && !svg.contains("a < b"));
    }

    #[test]
    fn a_plot_of_nothing_but_zeros_has_bars_of_no_length() {
        assert!(!bars("zeros", &[bar("none", 0.0)]).contains("NaN"));
    }
}
