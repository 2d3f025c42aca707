//! Progress for a person who waits: a spinner on a terminal, one plain line a step elsewhere.

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How steps are shown, always on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Progress {
    /// A spinner with detail while stderr is a terminal, else as [`Progress::Lines`].
    Bars,
    /// One line when a step starts.
    Lines,
    /// Nothing.
    #[default]
    Silent,
}

impl Progress {
    /// Announces a step; it is over when the returned value is dropped.
    pub(crate) fn step(self, title: impl Into<String>) -> Step {
        let title = title.into();
        tracing::debug!(step = %title, "development stack");
        let bar = match self {
            Self::Bars if std::io::stderr().is_terminal() => {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
                if let Ok(style) =
                    ProgressStyle::with_template("{spinner} {prefix} [{elapsed}] {wide_msg}")
                {
                    bar.set_style(style);
                }
                bar.set_prefix(title);
                bar.enable_steady_tick(Duration::from_millis(100));
                Some(bar)
            }
            Self::Bars | Self::Lines => {
                // A closed stderr is no reason to fail.
                let _ = writeln!(std::io::stderr(), "{title} …");
                None
            }
            Self::Silent => None,
        };
        Step { bar }
    }
}

/// One step under way.
pub(crate) struct Step {
    bar: Option<ProgressBar>,
}

impl Step {
    /// Shows what the step is at, where there is a spinner.
    pub(crate) fn detail(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
