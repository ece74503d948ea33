//! Colours, where they are wanted.

use std::io::IsTerminal;

/// How texts are set off from each other. Without colours all is plain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Palette {
    colours: bool,
}

/// Colours of names: those that can be read on dark and on light.
const NAMES: [u8; 6] = [31, 32, 33, 34, 35, 36];

// === impl Palette ===

impl Palette {
    /// Colours on a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
    pub(crate) fn for_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colours: std::io::stdout().is_terminal() && !unwanted,
        }
    }

    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { colours: false }
    }

    /// A user's name, in a colour of its own.
    pub(crate) fn name(self, name: &str) -> String {
        let hash = name.bytes().fold(7_u32, |hash, byte| {
            hash.wrapping_mul(31).wrapping_add(u32::from(byte))
        });
        self.set(NAMES[hash as usize % NAMES.len()], name)
    }

    /// What matters less.
    pub(crate) fn dim(self, text: &str) -> String {
        self.set(2, text)
    }

    /// What matters more.
    pub(crate) fn bold(self, text: &str) -> String {
        self.set(1, text)
    }

    /// What went wrong.
    pub(crate) fn wrong(self, text: &str) -> String {
        self.set(91, text)
    }

    fn set(self, code: u8, text: &str) -> String {
        if self.colours {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
