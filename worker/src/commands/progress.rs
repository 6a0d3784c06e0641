//! Progress bars: on stderr, and only on a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over `total` of `unit`, named `name`.
pub(crate) fn bar(total: u64, name: &str, unit: &str) -> ProgressBar {
    let template = format!(
        "{{prefix}} {{bar:30}} {{human_pos}}/{{human_len}} {unit}, {{per_sec}}, {{eta}} left {{msg}}"
    );
    let style = ProgressStyle::with_template(&template).expect("a valid template");
    ProgressBar::new(total).with_style(style).with_prefix(name.to_owned())
}
