//! Where chat is shown and typed: a terminal, or a dumb pipe.
//!
//! On a terminal, lines scroll by as anywhere else, and below them stand two
//! rows that are drawn anew: how things are, and the line being typed. So what
//! comes in never breaks what is being typed, and the terminal's own scrolling
//! and copying work. The two rows leave no trace on leaving, and the terminal is
//! restored whichever way that happens.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    time::Duration,
};

use crossterm::{
    cursor::{MoveDown, MoveToColumn, MoveUp},
    event::{
        self, DisableBracketedPaste, EnableBracketedPaste, Event, KeyCode, KeyEvent, KeyModifiers,
    },
    execute, queue,
    style::Print,
    terminal::{self, Clear, ClearType, disable_raw_mode, enable_raw_mode},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use unicode_width::UnicodeWidthChar;

use super::{
    book::Book,
    editor::{Editor, Typed},
    marks::{Marks, Place, Remark},
};

/// Typed lines or keys that wait for the conversation.
const TYPED_MAX: usize = 64;
/// How often the keyboard's thread looks whether it is over.
const GLANCE: Duration = Duration::from_millis(100);
const PROMPT: &str = "> ";

/// Where chat is shown.
#[derive(Debug)]
pub(crate) enum Screen {
    /// With a line editor and a status row.
    Terminal(Terminal),
    /// Lines in, lines out.
    Pipe,
}

/// What comes from the user.
#[derive(Debug)]
pub(crate) enum Keyboard {
    /// A key on a terminal.
    Key(KeyEvent),
    /// Pasted on a terminal.
    Paste(String),
    /// The terminal has another size.
    Resize,
    /// A line of the pipe.
    Line(String),
    /// The pipe has ended, or neither can be read.
    End,
}

/// The two rows at the bottom.
#[derive(Debug)]
pub(crate) struct Terminal {
    editor: Editor,
    status: String,
    is_drawn: bool,
    marks: Marks,
}

// === impl Screen ===

impl Screen {
    /// Takes over the terminal if standard input and output are one.
    pub(crate) fn open() -> io::Result<Self> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Ok(Self::Pipe);
        }
        enable_raw_mode()?;
        let mut terminal = Terminal {
            editor: Editor::default(),
            status: String::new(),
            is_drawn: false,
            marks: Marks::default(),
        };
        // From here on, dropping it restores.
        execute!(io::stdout(), EnableBracketedPaste)?;
        terminal.redraw(&[])?;
        Ok(Self::Terminal(terminal))
    }

    /// Starts to read what is typed. Ctrl-C on a terminal cancels `shutdown`
    /// even while nobody takes what was typed.
    pub(crate) fn keyboard(&self, shutdown: CancellationToken) -> mpsc::Receiver<Keyboard> {
        let (sender, typed) = mpsc::channel(TYPED_MAX);
        let is_terminal = matches!(self, Self::Terminal(_));
        // Reading blocks, and can't be called off: so it is a thread that the
        // process doesn't wait for.
        std::thread::spawn(move || {
            let read = if is_terminal { read_keys } else { read_lines };
            if let Err(error) = read(&sender, &shutdown) {
                tracing::warn!(%error, "cannot read what is typed");
            }
            let _ = sender.blocking_send(Keyboard::End);
        });
        typed
    }

    /// Prints lines. They must be harmless; see `printable`.
    pub(crate) fn print(&mut self, lines: &[String]) -> io::Result<()> {
        self.print_marked(lines, vec![])
    }

    /// Prints lines with marks in them, to be drawn over by `remark`.
    pub(crate) fn print_marked(&mut self, lines: &[String], places: Vec<Place>) -> io::Result<()> {
        match self {
            Self::Terminal(terminal) => {
                let (width, height) = size();
                // Two rows are the terminal's own.
                terminal
                    .marks
                    .printed(lines, places, width, height.saturating_sub(2));
                terminal.redraw(lines)
            }
            Self::Pipe => {
                let mut out = io::stdout().lock();
                lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
                out.flush()
            }
        }
    }

    /// Draws over the marks that have changed.
    pub(crate) fn remark(&mut self, book: &Book) -> io::Result<()> {
        let Self::Terminal(terminal) = self else {
            return Ok(());
        };
        let changed = terminal.marks.changed(|id, seq| book.mark(id, seq));
        let mut bytes = Vec::new();
        for Remark { up, column, mark } in changed {
            // From the input row to the message's, and back.
            let rows = up.saturating_add(1);
            queue!(
                bytes,
                MoveUp(rows),
                MoveToColumn(column),
                Print(mark.symbol())
            )?;
            queue!(bytes, MoveDown(rows))?;
        }
        queue!(bytes, MoveToColumn(terminal.cursor_column()))?;
        let mut out = io::stdout().lock();
        out.write_all(&bytes)?;
        out.flush()
    }

    /// Says how things are, if that has changed.
    pub(crate) fn set_status(&mut self, status: String) -> io::Result<()> {
        match self {
            Self::Terminal(terminal) if terminal.status != status => {
                terminal.status = status;
                terminal.redraw(&[])
            }
            Self::Terminal(_) | Self::Pipe => Ok(()),
        }
    }

    /// What lines have to fit into.
    pub(crate) fn width(&self) -> usize {
        match self {
            Self::Terminal(_) => size().0,
            Self::Pipe => usize::MAX,
        }
    }

    /// Whether there is a status row; a pipe is told by lines instead.
    pub(crate) fn has_status(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// Takes what came from the keyboard.
    pub(crate) fn take(&mut self, keyboard: Keyboard) -> io::Result<Typed> {
        let Self::Terminal(terminal) = self else {
            return Ok(match keyboard {
                Keyboard::Line(line) => Typed::Entered(line),
                Keyboard::End => Typed::Leave,
                Keyboard::Key(_) | Keyboard::Paste(_) | Keyboard::Resize => Typed::Nothing,
            });
        };
        let typed = match keyboard {
            Keyboard::Key(key) => terminal.editor.key(key),
            Keyboard::Paste(text) => {
                terminal.editor.paste(&text);
                Typed::Changed
            }
            Keyboard::Resize => {
                terminal.marks.forget();
                terminal.redraw(&[])?;
                Typed::Nothing
            }
            Keyboard::Line(_) | Keyboard::End => Typed::Leave,
        };
        match typed {
            Typed::Changed | Typed::Entered(_) => terminal.redraw(&[])?,
            Typed::Clear => {
                execute!(
                    io::stdout(),
                    Clear(ClearType::All),
                    crossterm::cursor::MoveTo(0, 0)
                )?;
                terminal.is_drawn = false;
                terminal.marks.forget();
                terminal.redraw(&[])?;
            }
            Typed::Nothing | Typed::Leave => {}
        }
        Ok(typed)
    }

    /// The line being typed.
    pub(crate) fn draft(&self) -> String {
        match self {
            Self::Terminal(terminal) => terminal.editor.line(),
            Self::Pipe => String::new(),
        }
    }
}

// === impl Terminal ===

impl Terminal {
    /// Takes the two rows away, prints lines, draws the rows again: in one write.
    fn redraw(&mut self, lines: &[String]) -> io::Result<()> {
        let (width, _) = size();
        let mut bytes = Vec::new();
        self.erase(&mut bytes)?;
        for line in lines {
            queue!(bytes, Print(line), Print("\r\n"))?;
        }
        let (line, _) = self.editor.view(width.saturating_sub(PROMPT.len()));
        queue!(
            bytes,
            Print("\x1b[2m"),
            Print(fit(&self.status, width)),
            Print("\x1b[0m\r\n")
        )?;
        queue!(
            bytes,
            Print(PROMPT),
            Print(line),
            MoveToColumn(self.cursor_column())
        )?;
        self.is_drawn = true;
        let mut out = io::stdout().lock();
        out.write_all(&bytes)?;
        out.flush()
    }

    fn cursor_column(&self) -> u16 {
        let (_, cursor) = self.editor.view(size().0.saturating_sub(PROMPT.len()));
        u16::try_from(PROMPT.len() + cursor).unwrap_or(u16::MAX)
    }

    fn erase(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        if std::mem::take(&mut self.is_drawn) {
            queue!(
                bytes,
                MoveToColumn(0),
                MoveUp(1),
                Clear(ClearType::FromCursorDown)
            )?;
        }
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut bytes = Vec::new();
        // There is nobody left to tell when the terminal has gone.
        let _ = self.erase(&mut bytes);
        let _ = queue!(bytes, DisableBracketedPaste);
        let _ = io::stdout()
            .write_all(&bytes)
            .and_then(|()| io::stdout().flush());
        let _ = disable_raw_mode();
    }
}

/// Columns and rows of the terminal.
fn size() -> (usize, u16) {
    terminal::size().map_or((80, 24), |(columns, rows)| (usize::from(columns), rows))
}

/// As much of a row as fits, with one column free, so that no terminal wraps it.
fn fit(row: &str, width: usize) -> String {
    let mut columns = 0;
    row.chars()
        .take_while(|c| {
            columns += c.width().unwrap_or(1);
            columns < width
        })
        .collect()
}

fn read_keys(sender: &mpsc::Sender<Keyboard>, shutdown: &CancellationToken) -> io::Result<()> {
    while !shutdown.is_cancelled() && !sender.is_closed() {
        if !event::poll(GLANCE)? {
            continue;
        }
        let typed = match event::read()? {
            Event::Key(key) => {
                let control = key.modifiers.contains(KeyModifiers::CONTROL);
                if control && key.code == KeyCode::Char('c') {
                    shutdown.cancel();
                }
                Keyboard::Key(key)
            }
            Event::Paste(text) => Keyboard::Paste(text),
            Event::Resize(..) => Keyboard::Resize,
            Event::FocusGained | Event::FocusLost | Event::Mouse(_) => continue,
        };
        if sender.blocking_send(typed).is_err() {
            break;
        }
    }
    Ok(())
}

fn read_lines(sender: &mpsc::Sender<Keyboard>, _: &CancellationToken) -> io::Result<()> {
    for line in io::stdin().lock().split(b'\n') {
        let line = String::from_utf8_lossy(&line?)
            .trim_end_matches('\r')
            .to_owned();
        if sender.blocking_send(Keyboard::Line(line)).is_err() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_cut_to_its_columns() {
        assert_eq!(fit("status", 80), "status");
        assert_eq!(fit("status", 4), "sta");
        assert_eq!(fit("爱丽丝", 6), "爱丽");
        assert_eq!(fit("status", 0), "");
    }
}
